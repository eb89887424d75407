"""The outcome of an attack: which images survive, given the ball, [0, 1] and the model."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.predictions import is_correct, is_finite
from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.config.threat import ThreatModel
from adrbench.registry import UserCodeError

#: How far outside the ball float32 rounding may put an image: relative to eps, and absolute.
RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-4, 1e-6


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Logits (N, num_classes) of attacked images, and outcomes derived from them, (N,) each."""

    logits: Tensor
    is_allowed: Tensor
    survives: Tensor

    @property
    def is_nonfinite(self) -> Tensor:
        """Which images of the threat model have logits that are not all finite."""
        return self.is_allowed & ~is_finite(self.logits)


def is_within(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> Tensor:
    """Return which images `x_adv` are in [0, 1] and in the ball around `x`, up to rounding, (N,).

    Both are (N, C, H, W).
    """
    limit = threat.eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    in_range = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    return in_range & (threat.distance(x, x_adv) <= limit)


def judge(
    model: nn.Module,
    threat: ThreatModel,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    *,
    attack: str,
    label: str = "the model",
    num_classes: int | None = None,
) -> Judged:
    """Judge the attack on images `x` that returned `x_adv`, both (N, C, H, W).

    An image survives if `x_adv` is classified correctly, with finite logits, or is outside the
    threat model; a warning then names the `attack`.

    Raises:
        UserCodeError: when the model, called `label`, does not return logits (N, num_classes);
            None allows any number of classes.

    """
    is_allowed = is_within(threat, x, x_adv)
    if not is_allowed.all():
        warnings.warn(
            ReliabilityWarning(
                f"{attack} returned images outside the threat model: they count as robust."
            ),
            stacklevel=2,
        )
    with torch.no_grad():
        logits = model(x_adv)
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape != (len(x), num_classes or shape[1]):
        raise UserCodeError(
            f"{label} returned a {type(logits).__name__} of shape {shape} for {len(x)} images: it "
            f"must return logits of shape (N, {num_classes or 'number of classes'}) for every "
            "number N of images."
        )
    return Judged(
        logits=logits, is_allowed=is_allowed, survives=~is_allowed | is_correct(logits, y)
    )
