"""The loop of FAB (Croce and Hein 2020), for a device that is slow to launch and to wait.

It replaces the loop of an official FAB object and has the same outcomes: the same numbers are
drawn, and every image is rounded as there. It launches fewer kernels, and waits for the device once
in several iterations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.attacks.autoattack_package import is_known_source
from adrbench.attacks.fab_projections import project_l2, project_linf
from adrbench.attacks.finite_logits import FiniteLogits

#: The official code that this loop reproduces (pyautoattack 0.2.0).
MODULES, FINGERPRINT = ("fab_base", "fab_pt", "fab_projections"), "39a6b10578bd8f64"
#: How many iterations run before it is checked that all of their logits were finite. If they were
#: not, these iterations are repeated with a check in each pass, and later ones have it too.
CHECKED_TOGETHER = 10
#: The distance of images for which no adversarial example has been found.
NOT_FOUND = 1e10


def replace_fab_loop(attack: Any, model: FiniteLogits) -> None:
    """Make an official FAB object on `model` run the loop of this module.

    An object of an unknown version of the package keeps its own.
    """
    if not is_known_source(MODULES, FINGERPRINT):
        return

    def attack_single_run(
        x: Tensor, y: Tensor, use_rand_start: bool = False, is_targeted: bool = False
    ) -> Tensor:
        with torch.no_grad():
            target_class = attack.target_class if is_targeted else None
            return _run(attack, model, x, y, target_class, starts_random=use_rand_start)

    attack.attack_single_run = attack_single_run


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """Functions of values (N, D), and their results of shape (N,) or (N, D)."""

    measure: Callable[[Tensor], Tensor]
    #: The norm of a gradient that divides a difference of logits to give the distance.
    measure_dual: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Tensor, Tensor], Tensor]
    draw: Callable[[torch.Size], Tensor]


def _measure_l2(values: Tensor) -> Tensor:
    return values.pow(2).sum(-1).sqrt()


_NORMS = {
    "Linf": _Norm(
        measure=lambda values: values.abs().amax(-1),
        measure_dual=lambda values: values.abs().sum(-1),
        project=project_linf,
        draw=lambda shape: 2 * torch.rand(shape) - 1,
    ),
    "L2": _Norm(
        measure=_measure_l2, measure_dual=_measure_l2, project=project_l2, draw=torch.randn
    ),
}


@dataclass(frozen=True, kw_only=True)
class _State:
    """Images (N, D) after some iterations, the nearest adversarial ones and their distances."""

    current: Tensor
    nearest: Tensor
    distance: Tensor


def _run(
    attack: Any,
    model: FiniteLogits,
    x: Tensor,
    y: Tensor,
    target_class: int | None,
    *,
    starts_random: bool,
) -> Tensor:
    """Return images `x` (N, C, H, W), and in place of those that were fooled, the nearest example.

    The target is the class whose logit is the highest but `target_class - 1`, None for any class.
    """
    kept = (_predict(model, x) == y).nonzero().squeeze(1)
    if len(kept) == 0:
        return x
    targets = None if target_class is None else model(x).sort(dim=-1)[1][kept, -target_class]
    search = _Search(attack, x[kept], y[kept], targets)
    state = search.start(is_random=starts_random)
    checked: nn.Module | None = None
    for first in range(0, attack.n_iter, CHECKED_TOGETHER):
        steps = min(CHECKED_TOGETHER, attack.n_iter - first)
        unchecked = _Unchecked(model.model)
        after = search.advance(checked or unchecked, state, steps)
        if checked is None and not unchecked.is_finite():
            checked = model
            after = search.advance(checked, state, steps)
        state = after
    found = (state.distance < NOT_FOUND).view(-1, *(1 for _ in x.shape[1:]))
    x_adv = x.clone()
    x_adv[kept] = torch.where(found, state.nearest.view_as(search.x), search.x)
    return x_adv


class _Unchecked(nn.Module):
    """`model`, with one check at the end of whether all logits were finite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.total: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        total = logits.detach().sum()
        self.total = total if self.total is None else torch.add(total, self.total, alpha=0)
        return logits

    def is_finite(self) -> bool:
        """Return whether the sums of logits were finite in all passes."""
        return self.total is None or math.isfinite(self.total.item())


class _Search:
    """The search around images `x` (N, C, H, W) with labels `y` (N,), for `targets` (N,) or any."""

    def __init__(self, attack: Any, x: Tensor, y: Tensor, targets: Tensor | None) -> None:
        self.attack, self.x, self.y, self.targets = attack, x, y, targets
        self.norm = _NORMS[attack.norm]
        self.flat = x.flatten(1)
        self.rows = torch.arange(len(x), device=x.device)

    def start(self, *, is_random: bool) -> _State:
        current = self.flat
        if is_random:
            noise = self.norm.draw(self.x.shape).to(self.x.device).flatten(1)
            limit = torch.full_like(self.flat[:, :1], self.attack.eps)
            current = current + limit * noise / self.norm.measure(noise).unsqueeze(1) * 0.5
            current = current.clamp(0, 1)
        distance = torch.full_like(self.flat[:, 0], NOT_FOUND)
        return _State(current=current, nearest=self.flat, distance=distance)

    def advance(self, model: nn.Module, state: _State, steps: int) -> _State:
        """Return the state after several steps."""
        for _ in range(steps):
            state = self.step(model, state)
        return state

    def step(self, model: nn.Module, state: _State) -> _State:
        """Return the state after a step to the decision boundary (Algorithm 1 of the paper)."""
        current = self._approach(model, state.current)
        is_adversarial = _predict(model, current.view_as(self.x)) != self.y
        change = current - self.flat
        distance = self.norm.measure(change)
        is_nearer = is_adversarial & (distance < state.distance)
        returned = self.flat + change * self.attack.beta
        return _State(
            current=torch.where(is_adversarial.unsqueeze(1), returned, current),
            nearest=torch.where(is_nearer.unsqueeze(1), current, state.nearest),
            distance=torch.where(
                is_adversarial, torch.minimum(distance, state.distance), state.distance
            ),
        )

    def _approach(self, model: nn.Module, current: Tensor) -> Tensor:
        """Return images (N, D) beyond the linear approximation of the boundary, if it is right."""
        difference, gradient = self._linearize(model, current)
        offset = (gradient * current).sum(-1) - difference
        steps = self.norm.project(
            torch.cat([current, self.flat]), gradient.repeat(2, 1), offset.repeat(2)
        )
        lengths = self.norm.measure(steps).unsqueeze(1).clamp_min(1e-8)
        (step, other), (length, other_length) = steps.chunk(2), lengths.chunk(2)
        alpha = (length / (length + other_length)).clamp(0, self.attack.alpha_max)
        beyond: Tensor = current + self.attack.eta * step
        other_beyond: Tensor = self.flat + other * self.attack.eta
        mixed: Tensor = beyond * (1 - alpha) + other_beyond * alpha
        return mixed.clamp(0, 1)

    def _linearize(self, model: nn.Module, current: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the logit of the class in question leads, (N,), and its gradient (N, D).

        It is the target, or the class with the nearest decision boundary.
        """
        images = current.view_as(self.x).detach().requires_grad_()
        with torch.enable_grad():
            logits = model(images)
        values = logits.detach()
        own = values.gather(1, self.y.unsqueeze(1))
        if self.targets is not None:
            difference = values.gather(1, self.targets.unsqueeze(1)) - own
            direction = torch.zeros_like(values)
            direction.scatter_(1, self.y.unsqueeze(1), -1)
            direction.scatter_add_(1, self.targets.unsqueeze(1), torch.ones_like(own))
            (gradient,) = torch.autograd.grad(logits, images, direction)
            return difference.squeeze(1), gradient.flatten(1)
        classes = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
        gradients = torch.stack(
            [
                torch.autograd.grad(logits, images, row.expand_as(values), retain_graph=True)[0]
                for row in classes
            ],
            dim=1,
        ).flatten(2)
        gradients = gradients - gradients[self.rows, self.y].unsqueeze(1)
        differences = (values - own).scatter(1, self.y.unsqueeze(1), NOT_FOUND)
        distances = differences.abs() / (self.norm.measure_dual(gradients) + 1e-12)
        nearest = distances.min(dim=1)[1]
        return differences[self.rows, nearest], gradients[self.rows, nearest]


def _predict(model: nn.Module, x: Tensor) -> Tensor:
    predicted: Tensor = model(x).max(dim=1)[1]
    return predicted
