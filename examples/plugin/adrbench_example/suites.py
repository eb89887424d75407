"""A suite: a callable (threat, num_classes, seed) that returns an `adrbench.Suite`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench import Suite, ThreatModel


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """The sample with the highest loss among several on the surface of the ball."""

    threat: ThreatModel
    seed: int
    samples: int = 20
    name: str = "noise"
    label_loss = None  # it uses no gradients

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return perturbed images, shaped as `x` (N, C, H, W), inside the ball and [0, 1]."""
        worst, highest = x, F.cross_entropy(model(x), y, reduction="none")
        for sample in range(self.samples):
            noisy = (x + self._draw(x, indices, sample)).clamp(0, 1)
            loss = F.cross_entropy(model(noisy), y, reduction="none")  # (N,)
            is_higher = loss > highest
            worst = torch.where(is_higher[:, None, None, None], noisy, worst)
            highest = torch.where(is_higher, loss, highest)
        return worst

    def _draw(self, x: Tensor, indices: Tensor, sample: int) -> Tensor:
        """Return noise of norm eps, which for an image does not depend on the rest of its batch."""
        rows = [
            np.random.default_rng((self.seed, sample, index)).standard_normal(x.shape[1:])
            for index in indices.tolist()
        ]
        noise = torch.from_numpy(np.stack(rows)).to(x)
        if self.threat.norm == "Linf":
            return self.threat.eps * noise.sign()
        return self.threat.eps * F.normalize(noise.flatten(1)).view_as(x)


def build(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Random noise on the surface of the ball, the worst of 20 samples."""
    return Suite(name="noise", stages=[RandomNoise(threat=threat, seed=seed)])
