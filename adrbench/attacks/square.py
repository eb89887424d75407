"""The loop of Square (Andriushchenko et al. 2020), for a device that is slow to launch and to wait.

It replaces the loop of an official Square object and has the same outcomes: the same numbers are
drawn in the same order, and every candidate is rounded as there. Per query it launches fewer
kernels and waits for the device once.
"""

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from adrbench.attacks.autoattack_package import is_known_source
from adrbench.attacks.finite_logits import FiniteLogits, read_highest
from adrbench.attacks.pgd import margins

#: The official code that this loop reproduces (pyautoattack 0.2.0).
MODULES, FINGERPRINT = ("square",), "bd5c61d3b43d3b55"
#: How many random numbers are drawn at once and copied to the device together.
BLOCK = 1 << 16


def replace_square_loop(attack: Any, model: FiniteLogits) -> None:
    """Make an official Square object on `model` run the loop of this module.

    An object of an unknown version of the package keeps its own.
    """
    if not is_known_source(MODULES, FINGERPRINT):
        return
    assert attack.loss == "margin"

    def attack_single_run(x: Tensor, y: Tensor) -> tuple[None, Tensor]:
        with torch.no_grad():
            return None, _run(attack, model, x, y)

    attack.attack_single_run = attack_single_run


class UniformNumbers:
    """The numbers that torch.rand draws on the CPU one after another, in [0, 1), and their signs.

    The sign of a number u is that of 2u - 1, which is zero for u = 1/2. More numbers may be drawn
    from torch's global generator than are taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.numbers = torch.empty(0)
        self.signs = torch.empty(0, device=device)
        self.taken = 0

    def take(self, count: int) -> Tensor:
        """Return the next numbers (count,), on the CPU."""
        place = self._advance(count)
        return self.numbers[place]

    def take_integers(self, *limits: int) -> tuple[int, ...]:
        """Return an integer in [0, limit) for each limit; 0 where that is 0."""
        numbers = self.take(len(limits)).numpy()
        return tuple(int(np.float32(limit) * u) for limit, u in zip(limits, numbers, strict=True))

    def take_signs(self, *shape: int) -> Tensor:
        """Return the signs of the next numbers in this shape, on the device."""
        place = self._advance(math.prod(shape))
        return self.signs[place].view(shape)

    def _advance(self, count: int) -> slice:
        if self.taken + count > len(self.numbers):
            drawn = torch.rand(max(BLOCK, count))
            self.numbers = torch.cat([self.numbers[self.taken :], drawn])
            self.signs = (2 * self.numbers - 1).sign().to(self.device)
            self.taken = 0
        self.taken += count
        return slice(self.taken - count, self.taken)


class _Search(Protocol):
    """The random search in a ball around some images; `best` are the best candidates so far."""

    best: Tensor

    def select(self, kept: Tensor) -> None:
        """Keep only the images at the positions `kept`."""

    def propose(self, p: float) -> Tensor:
        """Return new candidates, which change about the fraction `p` of the pixels."""

    def settle(self, is_better: Tensor) -> None:
        """Make the candidates that were proposed last the best ones, where `is_better` (N,)."""


def _run(attack: Any, model: FiniteLogits, x: Tensor, y: Tensor) -> Tensor:
    """Return the best candidates for images `x` (N, C, H, W) in [0, 1] with labels `y` (N,).

    An image is fooled when its highest wrong logit is at least its true one. The batch of a query
    consists of the images that are not.
    """
    numbers = UniformNumbers(x.device)
    search: _Search = _SEARCHES[attack.norm](attack, x, numbers)
    lead = margins(model(search.best), y)
    found = search.best.clone()
    active = torch.arange(len(x), device=x.device)
    is_some_fooled = True
    for query in range(attack.n_queries):
        if is_some_fooled:
            found[active] = search.best
            kept = (lead < 0).nonzero().squeeze(1)
            if len(kept) == 0:
                return found
            active, lead, y = active[kept], lead[kept], y[kept]
            search.select(kept)
        candidates = search.propose(attack.p_selection(query))
        logits = model.model(candidates)
        reached = margins(logits, y)
        highest_lead = torch.maximum(lead, reached)
        highest = read_highest(highest_lead, logits)
        if math.isnan(highest):
            reached = margins(model.replace_nonfinite(candidates, logits), y)
            highest_lead = torch.maximum(lead, reached)
            highest = highest_lead.amax().item()
        search.settle(reached > lead)
        lead = highest_lead
        is_some_fooled = not highest < 0
    found[active] = search.best
    return found


class _LinfSearch:
    """Squares of one colour change by 2 eps or -2 eps per channel (Algorithm 2 of the paper)."""

    def __init__(self, attack: Any, x: Tensor, numbers: UniformNumbers) -> None:
        n, channels, _, width = x.shape
        self.eps, self.numbers = attack.eps, numbers
        self.low, self.high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        stripes = numbers.take_signs(n, channels, 1, width)
        self.best: Tensor = (x + self.eps * stripes).clamp(0, 1)
        #: The pixels that a proposal replaced in `best`, and those pixels before.
        self.window = self.before = self.best

    def select(self, kept: Tensor) -> None:
        self.low, self.high, self.best = self.low[kept], self.high[kept], self.best[kept]

    def propose(self, p: float) -> Tensor:
        _, channels, height, width = self.best.shape
        side = min(max(_side(p, self.best), 1), height, width)
        top, left = self.numbers.take_integers(height - side, width - side)
        signs = self.numbers.take_signs(channels, 1, 1)
        area = _area(top, left, side)
        self.window = self.best[area]
        self.before = self.window.clone()
        torch.add(self.before, signs, alpha=2 * self.eps, out=self.window)
        torch.clamp(self.window, self.low[area], self.high[area], out=self.window)
        return self.best

    def settle(self, is_better: Tensor) -> None:
        torch.where(_per_image(is_better), self.window, self.before, out=self.window)


class _L2Search:
    """Perturbation moves from one window to another (Algorithm 3 of the paper)."""

    def __init__(self, attack: Any, x: Tensor, numbers: UniformNumbers) -> None:
        self.attack, self.x, self.numbers = attack, x, numbers
        self.profiles: dict[int, tuple[Tensor, Tensor]] = {}
        self.squared_eps = (attack.eps * torch.ones(1, device=x.device)) ** 2
        self.best = self.candidates = self._add(self._tile())

    def select(self, kept: Tensor) -> None:
        self.x, self.best = self.x[kept], self.best[kept]

    def propose(self, p: float) -> Tensor:
        n, channels, height, width = self.x.shape
        side = max(_side(p, self.x), 3)
        side = min(side + (side % 2 == 0), height, width)
        limits = (height - side, width - side)
        top, left, other_top, other_left = self.numbers.take_integers(*limits, *limits)
        target, source = _area(top, left, side), _area(other_top, other_left, side)
        profile = self._draw_profile(side)
        signs = self.numbers.take_signs(n, channels, 1, 1)

        delta = self.best - self.x
        moved = torch.zeros_like(delta)
        moved[target], moved[source] = delta[target], delta[source]
        moved_norm = _plane_norms(moved)
        unused = (self.squared_eps - self.attack.lp_norm(delta) ** 2).clamp(min=0) / channels
        before = delta[target]
        change = torch.addcmul(before / (_plane_norms(before) + 1e-12), profile, signs)
        change = change / (_plane_norms(change) + 1e-12) * (unused + moved_norm**2).sqrt()
        delta[source] = 0
        delta[target] = change
        self.candidates = self._add(delta)
        return self.candidates

    def settle(self, is_better: Tensor) -> None:
        self.best = torch.where(_per_image(is_better), self.candidates, self.best)

    def _add(self, delta: Tensor) -> Tensor:
        """Return the images perturbed by `delta`, rescaled to the length eps."""
        candidates: Tensor = self.x + self.attack.normalize(delta) * self.attack.eps
        return candidates.clamp(0, 1)

    def _tile(self) -> Tensor:
        """Return the initial perturbation: a grid of tiles, a fifth of the height each."""
        n, channels, height, width = self.x.shape
        delta = torch.zeros_like(self.x)
        side = height // 5
        offset = (height - side * 5) // 2
        for row in range(height // side):
            for column in range(width // side):
                profile = self._draw_profile(side)
                signs = self.numbers.take_signs(n, channels, 1, 1)
                delta[_area(offset + row * side, offset + column * side, side)] += profile * signs
        return delta

    def _draw_profile(self, side: int) -> Tensor:
        """Return the perturbation of a window (side, side), of length 1, in a random direction."""
        if side not in self.profiles:
            half = side // 2
            upper = self.attack.eta_rectangles(half, side)
            profile = torch.cat([upper, -self.attack.eta_rectangles(side - half, side)])
            profile /= (profile**2).sum(dim=(0, 1), keepdim=True).sqrt()
            self.profiles[side] = profile, profile.T.contiguous()
        return self.profiles[side][bool(self.numbers.take(1).numpy() > 0.5)]


_SEARCHES: dict[str, type[_LinfSearch | _L2Search]] = {"Linf": _LinfSearch, "L2": _L2Search}


def _side(p: float, x: Tensor) -> int:
    """Return the side of a square that covers the fraction `p` of images `x` (N, C, H, W)."""
    return round(math.sqrt(p * math.prod(x.shape[1:]) / x.shape[1]))


def _area(top: int, left: int, side: int) -> tuple[Any, ...]:
    return (..., slice(top, top + side), slice(left, left + side))


def _plane_norms(values: Tensor) -> Tensor:
    """Return the length of each channel of each image, (N, C, 1, 1)."""
    return values.pow(2).sum(dim=(-2, -1), keepdim=True).sqrt()


def _per_image(values: Tensor) -> Tensor:
    """Return values (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
