"""Checks of whether gradient attacks on a model can be trusted, made before the attacks.

They take two or three gradient steps on a few images, a negligible part of an evaluation. Each
finding is a ReliabilityWarning.
"""

import warnings

import torch
from torch import Tensor, nn

from adrbench.attacks.pgd import LabelLoss, usable_gradient
from adrbench.attacks.predictions import is_correct
from adrbench.attacks.reliability_warnings import (
    PROBABILITIES,
    RANDOMIZED,
    ZERO_GRADIENT,
    ReliabilityWarning,
)
from adrbench.config.threat import NORMS

#: How many images are enough.
NUM_CHECKED = 8
#: How far outputs may vary between passes, relative to their L2 norm, and how close to
#: probabilities they may be; as in AutoAttack's own checks (Croce and Hein 2020).
VARIATION, PROBABILITY_SLACK = 1e-4, 1e-5
#: Steps at full range and their size, as a fraction of the range. Models without masked gradients
#: needed at most two steps (robust and undefended, on digits and CIFAR-10).
FULL_RANGE_STEPS, FULL_RANGE_ALPHA = 20, 0.5


def check_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    loss: LabelLoss | None,
    may_vary: bool = True,
) -> None:
    """Check `model` on a few images `x` (N, C, H, W) that it classifies correctly as `y` (N,).

    Warns if the outputs look like probabilities; if they vary between passes, which is checked
    where they `may_vary`; if the gradient of `loss`, which the suite maximizes in `norm`, is
    exactly zero; or if maximizing it over the full pixel range does not fool the model on every
    image. `loss` is None for a suite that uses no gradients.
    """
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        variable = x.detach().requires_grad_()
        with torch.set_grad_enabled(loss is not None):
            logits: Tensor = model(variable)
        _check_probabilities(logits.detach())
        if may_vary:
            with torch.no_grad():
                _check_variation(logits, model(x))
        if loss is not None:
            with torch.enable_grad():
                value = loss(logits, y)
            gradient = usable_gradient(value, variable)
            _check_zero_gradient(gradient)
            _check_full_range(model, x, y, gradient, norm=norm, loss=loss)


def _check_probabilities(logits: Tensor) -> None:
    is_in_range = (logits > -PROBABILITY_SLACK) & (logits < 1 + PROBABILITY_SLACK)
    sums_to_one = (logits.sum(1) - 1).abs() < PROBABILITY_SLACK
    if is_in_range.all() and sums_to_one.all():
        _warn(PROBABILITIES)


def _check_variation(logits: Tensor, others: Tensor) -> None:
    one, other = (each / (each.norm(dim=1, keepdim=True) + 1e-10) for each in (logits, others))
    if not (one - other).norm(dim=1).max() <= VARIATION:
        _warn(RANDOMIZED)


def _check_zero_gradient(gradient: Tensor) -> None:
    if (gradient.flatten(1) == 0).all(1).any():
        _warn(ZERO_GRADIENT)


def _check_full_range(
    model: nn.Module, x: Tensor, y: Tensor, gradient: Tensor, *, norm: str, loss: LabelLoss
) -> None:
    """Maximize `loss` from `x`, where it has this `gradient`, limited only by [0, 1].

    The ball is the smallest that holds every image: its radius is 1 under Linf, and the square
    root of the number of pixels under L2.
    """
    radius = 1.0 if norm == "Linf" else float(x[0].numel()) ** 0.5
    is_robust = torch.ones_like(y, dtype=torch.bool)
    x_adv = x
    for _ in range(FULL_RANGE_STEPS):
        before = x_adv
        step = FULL_RANGE_ALPHA * radius * NORMS[norm].direction(gradient)
        x_adv = (x_adv + step).clamp(0, 1).requires_grad_()
        with torch.enable_grad():
            logits = model(x_adv)
            value = loss(logits, y)
        is_robust &= is_correct(logits.detach(), y)
        if not is_robust.any():
            return
        gradient = usable_gradient(value, x_adv)
        x_adv = x_adv.detach()
        if torch.equal(x_adv, before):
            break
    _warn(
        f"an attack with the full pixel range as its radius ({norm}, eps {radius:g}), which can "
        f"reach any image, leaves {int(is_robust.sum())} of {len(x)} images classified correctly: "
        "gradients are probably masked, and the robust accuracy is unreliable; compare it with "
        "the suite square, which needs no gradients."
    )


def _warn(text: str) -> None:
    warnings.warn(ReliabilityWarning(text), stacklevel=3)
