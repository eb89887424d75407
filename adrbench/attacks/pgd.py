"""Projected gradient descent (PGD), for the inner maximization in training and for evaluation.

The search (`ascend`), the objective (a loss) and the allowed perturbations (a threat model) are
separate. Evaluation noise is drawn per image from (seed, index, restart), so an image's outcome
depends neither on the batch size nor on the process that attacks it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.predictions import is_correct
from adrbench.config.threat import ThreatModel
from adrbench.runtime import seeds

#: (logits (N, num_classes), labels (N,)) -> a scalar to maximize.
LabelLoss = Callable[[Tensor, Tensor], Tensor]
#: images (N, C, H, W) -> a scalar to maximize.
ImageLoss = Callable[[Tensor], Tensor]


def image_gradient(loss: ImageLoss, x: Tensor) -> Tensor:
    """Return the gradient of `loss` at images `x`, (N, C, H, W)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(x), x)
    return gradient


def usable_gradient(value: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a scalar at images `x`, zero where it is not finite.

    It is zero everywhere if autograd recorded no dependence on `x`.
    """
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def usable_image_gradient(loss: ImageLoss, x: Tensor) -> Tensor:
    """Return `image_gradient`, but zero where there is none to use: a step then moves nothing."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(x)
    return usable_gradient(value, x)


def ascend(
    threat: ThreatModel,
    x: Tensor,
    start: Tensor,
    loss: ImageLoss,
    *,
    steps: int,
    alpha: float,
    differentiate: Callable[[ImageLoss, Tensor], Tensor] = image_gradient,
) -> Tensor:
    """Maximize `loss` from `start` in the ball around `x`.

    Takes `steps` steepest-ascent steps of size `alpha` in the norm, each followed by a projection
    (Madry et al. 2018). Returns the last iterate, shape (N, C, H, W), without gradient.
    """
    x_adv = start.detach()
    for _ in range(steps):
        x_adv = threat.step(x, x_adv, differentiate(loss, x_adv), alpha)
    return x_adv


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (highest wrong logit - true logit) of each image, (N,): above 0 if misclassified."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return wrong - true


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the margins of all images, a scalar.

    Carlini and Wagner 2017, f_6 without its clipping at zero.
    """
    return margins(logits, labels).sum()


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over the batch: gradients do not depend on its size."""
    return F.cross_entropy(logits, labels, reduction="sum")


@dataclass(frozen=True, kw_only=True)
class PGD:
    """PGD for evaluation: `restarts` random starts, each with `steps` steps of size `alpha`.

    Returns the first misclassified result of each image, or the last restart's if there is none.
    `random_start=False` starts at the image itself.
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
        """Attack images `x` (N, C, H, W) with labels `y` at test-set positions `indices` (N,)."""
        x_adv = x.clone()
        remaining = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            images, labels = x[remaining], y[remaining]
            start = self._start(images, indices[remaining], restart)
            found = self._maximize(model, images, labels, start)
            x_adv[remaining] = found
            if restart + 1 == self.restarts:
                break
            with torch.no_grad():
                remaining = remaining[is_correct(model(found), labels)]
            if len(remaining) == 0:
                break
        return x_adv

    def _maximize(self, model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        return ascend(
            self.threat,
            x,
            start,
            lambda x_adv: self.loss(model(x_adv), y),
            steps=self.steps,
            alpha=self.alpha,
            differentiate=usable_image_gradient,
        )

    def _start(self, x: Tensor, indices: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return x.clone()
        one_image = torch.empty((1, *x.shape[1:]), dtype=x.dtype)
        noise = [
            self.threat.draw(one_image, seeds.generator("cpu", self.seed, "pgd", index, restart))
            for index in indices.tolist()
        ]
        return (x + torch.cat(noise).to(x.device)).clamp(0, 1)


def fgsm(threat: ThreatModel) -> PGD:
    """Return FGSM: one step of size eps from the image itself (Goodfellow et al. 2015)."""
    return PGD(name="fgsm", threat=threat, steps=1, alpha=threat.eps, random_start=False)
