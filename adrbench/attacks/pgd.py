"""Projected gradient descent (PGD), for the inner maximization in training and for evaluation.

The search (`ascend`), the objective (a loss) and the allowed perturbations (a threat model) are
separate. Evaluation noise is drawn per image from (seed, index, restart), so an image's outcome
depends neither on the batch size nor on the process that attacks it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.predictions import is_correct
from adrbench.config.declare import is_number, is_whole_number
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, unknown_name
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
    """Return `image_gradient`, but zero where it is not usable, so that a step has no effect."""
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
    """Return (highest wrong logit - true logit) of each image, (N,); positive if misclassified."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return wrong - true


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the margins of all images, a scalar.

    This is f_6 of Carlini and Wagner 2017 without its clipping at zero.
    """
    return margins(logits, labels).sum()


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy summed over the batch, so gradients do not depend on its size."""
    return F.cross_entropy(logits, labels, reduction="sum")


LossName = Literal["cross-entropy", "margin"]
LOSSES: dict[LossName, LabelLoss] = {"cross-entropy": cross_entropy_sum, "margin": margin}
DEFAULT_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class PGD:
    """PGD for evaluation: `restarts` random restarts, each of `steps` steps of size `alpha`.

    Madry et al. 2018; with the margin loss, this is the PGD form of the attack of Carlini and
    Wagner 2017. The result for an image is that of the first restart that succeeds, or else of the
    last restart. `alpha` is a fraction of the pixel range, eps / 4 by default. `loss` is a name of
    `LOSSES`, or a function from logits (N, num_classes) and labels (N,) to the scalar to maximize.
    `random_start=False` starts at the clean image.

    If `threat` and `seed` are omitted, those of the evaluation are used (see `bind`).

    Raises:
        UsageError: for a number of steps or restarts below 1, an alpha not above 0, or an unknown
            loss.

    Example:
        >>> PGD(steps=50, restarts=5, loss="margin").name
        'pgd-50-margin'

    """

    name: str = ""
    threat: ThreatModel | None = None
    steps: int = DEFAULT_STEPS
    alpha: float | None = None
    restarts: int = 1
    loss: LossName | LabelLoss = "cross-entropy"
    seed: int | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            value = getattr(self, name)
            if not is_whole_number(value) or value < 1:
                raise UsageError(f"{name} is {value!r}: PGD needs a whole number, at least 1.")
            object.__setattr__(self, name, int(value))
        if self.alpha is not None:
            if not is_number(self.alpha) or not 0 < self.alpha < math.inf:
                raise UsageError(f"alpha is {self.alpha!r}: give a number above 0, such as 2/255.")
            object.__setattr__(self, "alpha", float(self.alpha))
        for name, loss in LOSSES.items():
            if self.loss is loss:
                object.__setattr__(self, "loss", name)
        if not callable(self.loss) and self.loss not in LOSSES:
            raise unknown_name("loss", str(self.loss), LOSSES)
        if not self.name:
            is_default = self.loss == "cross-entropy"
            label = self.loss if isinstance(self.loss, str) else _name_of(self.loss)
            name = f"pgd-{self.steps}" if is_default else f"pgd-{self.steps}-{label}"
            name += "" if self.random_start else "-clean-start"
            object.__setattr__(self, "name", name)

    @property
    def label_loss(self) -> LabelLoss:
        """The loss as a function of logits and labels."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    @property
    def num_passes(self) -> int:
        """The maximum number of forward passes on a batch."""
        return self.restarts * self.steps + self.restarts - 1

    @property
    def perturb_maximizes(self) -> bool:
        """Whether `perturb` returns what `maximize` does: restarts end with the first success."""
        return self.restarts == 1

    def bind(self, threat: ThreatModel, num_classes: int, seed: int) -> "PGD":
        """Return this attack with missing threat model, step size and seed filled in."""
        own = self.threat or threat
        return replace(
            self,
            threat=own,
            alpha=self._step_size(own),
            seed=seed if self.seed is None else self.seed,
        )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Attack images `x` (N, C, H, W) with labels `y` at test-set positions `indices` (N,)."""
        threat = self._bound_threat()
        x_adv = x.clone()
        remaining = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            images, labels = x[remaining], y[remaining]
            start = self._start(threat, images, indices[remaining], restart)
            found = self._ascend(threat, model, images, labels, start)
            x_adv[remaining] = found
            if restart + 1 == self.restarts:
                break
            with torch.no_grad():
                remaining = remaining[is_correct(model(found), labels)]
            if len(remaining) == 0:
                break
        return x_adv

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return the last iterate for each image; of several restarts, that of the highest loss.

        The arguments are those of `perturb`. A loss that is not a number counts as infinite.
        """
        threat = self._bound_threat()
        x_adv, highest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        for restart in range(self.restarts):
            start = self._start(threat, x, indices, restart)
            found = self._ascend(threat, model, x, y, start)
            if self.restarts == 1:
                return found
            with torch.no_grad():
                losses = self._losses(model(found), y).nan_to_num(nan=torch.inf)
            is_higher = losses > highest
            x_adv[is_higher], highest[is_higher] = found[is_higher], losses[is_higher]
        return x_adv

    def _bound_threat(self) -> ThreatModel:
        if self.threat is None:
            raise UsageError(f"{self.name} has no threat model: bind it, or give it to evaluate().")
        return self.threat

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, (N,): a `LabelLoss` may be a sum or a mean of them."""
        pairs = zip(logits[:, None], labels[:, None], strict=True)
        return torch.stack([self.label_loss(one, label) for one, label in pairs]).float()

    def _ascend(
        self, threat: ThreatModel, model: nn.Module, x: Tensor, y: Tensor, start: Tensor
    ) -> Tensor:
        return ascend(
            threat,
            x,
            start,
            lambda x_adv: self.label_loss(model(x_adv), y),
            steps=self.steps,
            alpha=self._step_size(threat),
            differentiate=usable_image_gradient,
        )

    def _step_size(self, threat: ThreatModel) -> float:
        return threat.eps / 4 if self.alpha is None else self.alpha

    def _start(self, threat: ThreatModel, x: Tensor, indices: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return x.clone()
        one_image = torch.empty((1, *x.shape[1:]), dtype=x.dtype)
        noise = [
            threat.draw(one_image, seeds.generator("cpu", self.seed or 0, "pgd", index, restart))
            for index in indices.tolist()
        ]
        return (x + torch.cat(noise).to(x.device)).clamp(0, 1)


def _name_of(loss: LabelLoss) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


@dataclass(frozen=True, kw_only=True)
class _FGSM(PGD):
    name: str = "fgsm"
    steps: int = 1
    random_start: bool = False

    def _step_size(self, threat: ThreatModel) -> float:
        return threat.eps if self.alpha is None else self.alpha


def fgsm(threat: ThreatModel | None = None) -> PGD:
    """Return FGSM: one step of size eps from the clean image (Goodfellow et al. 2015)."""
    return _FGSM(threat=threat)
