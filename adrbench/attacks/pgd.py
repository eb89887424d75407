"""Projected gradient ascent, for making training examples and for evaluation.

How to search (`ascend`) is apart from what counts as further up (a loss) and how far is allowed
(a threat model). Evaluation noise is drawn per image from (seed, index, restart), so a verdict
depends neither on the batch size nor on which process saw the image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.threat import ThreatModel
from adrbench.runtime import seeds

#: (logits (N, C), labels (N,)) -> a scalar that grows as the model errs.
LabelLoss = Callable[[Tensor, Tensor], Tensor]


def ascend(
    threat: ThreatModel,
    x: Tensor,
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int,
    alpha: float,
) -> Tensor:
    """Climb `loss`, a function of images to a scalar, from `start` in the ball around `x`.

    Each of `steps` steps of size `alpha` follows the steepest ascent of the norm and projects
    back (Madry et al. 2018). Returns the last iterate, shape (N, C, H, W), without gradient.
    """
    x_adv = start.detach()
    for _ in range(steps):
        x_adv.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(x_adv), x_adv)
        x_adv = threat.step(x, x_adv.detach(), gradient, alpha)
    return x_adv


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over images of (best wrong logit - true logit), the loss of C&W.

    Carlini and Wagner 2017, f_6 without its clipping at zero.
    """
    true = logits.gather(1, labels[:, None]).squeeze(1)
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return (wrong - true).sum()


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over the batch, so that no image scales another's."""
    return F.cross_entropy(logits, labels, reduction="sum")


@dataclass(frozen=True, kw_only=True)
class PGD:
    """PGD as an evaluation: `restarts` random starts of `steps` steps of `alpha`.

    An image stays with the first restart that fools the model; one that none fools comes back
    as the last restart left it. `random_start=False` begins at the image itself.
    """

    name: str
    threat: ThreatModel
    steps: int
    alpha: float
    restarts: int = 1
    loss: LabelLoss = cross_entropy_sum
    seed: int = 0
    random_start: bool = True

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Attack images `x` (N, C, H, W) of labels `y`; `indices` are their test-set positions."""
        x_adv = x.clone()
        standing = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            images, labels = x[standing], y[standing]
            start = self._start(images, indices[standing], restart)
            found = self._climb(model, images, labels, start)
            x_adv[standing] = found
            if restart + 1 == self.restarts:
                break
            with torch.no_grad():
                standing = standing[model(found).argmax(1) == labels]
            if len(standing) == 0:
                break
        return x_adv

    def _climb(self, model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        return ascend(
            self.threat,
            x,
            start,
            lambda x_adv: self.loss(model(x_adv), y),
            steps=self.steps,
            alpha=self.alpha,
        )

    def _start(self, x: Tensor, indices: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return x.clone()
        like = torch.empty((1, *x.shape[1:]), dtype=x.dtype)
        noise = [
            self.threat.draw(like, seeds.generator("cpu", self.seed, "pgd", index, restart))
            for index in indices.tolist()
        ]
        return (x + torch.cat(noise).to(x.device)).clamp(0, 1)


def fgsm(threat: ThreatModel) -> PGD:
    """Return one full step from the image itself (Goodfellow et al. 2015)."""
    return PGD(name="fgsm", threat=threat, steps=1, alpha=threat.eps, random_start=False)
