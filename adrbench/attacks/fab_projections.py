"""Projections of FAB (Croce and Hein 2020, section 2.2), without waiting for the device.

The nearest point on a hyperplane within the box [0, 1] is found from the pixels in the order in
which they reach the box. Which rows are projected in which way is not read from the device: all
rows are, and the results are selected afterwards. Results are rounded as in the official package.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def project_linf(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return the steps (R, D) from `points` (R, D) in [0, 1] to the hyperplanes w x = b.

    They are shortest in the maximum norm, and stay in the box. Where the box does not reach the
    hyperplane, the step leads to the corner nearest to it. `w` is (R, D), `b` (R,).
    """
    gap = (w * points).sum(1) - b
    w = w * _sign(gap)
    b = -gap.abs()
    is_used = w != 0
    upward = (w < 0).to(w.dtype)
    to_corner = upward - points
    room, order = to_corner.abs().sort(dim=1)
    order = order.flip(1)
    to_corner = to_corner * is_used

    gains = w * to_corner
    at_corner = gains.sum(1)
    slopes = w.gather(1, order).abs().cumsum(1)
    offsets = at_corner.unsqueeze(1) - gains.gather(1, order).cumsum(1)
    is_beyond = b.unsqueeze(1) > offsets - slopes * room.flip(1)

    is_uniform = is_beyond[:, -1:]
    is_inside = (b > at_corner).unsqueeze(1)
    last = _bisect(is_beyond).masked_fill(is_uniform, w.shape[1] - 1)
    length = ((offsets.gather(1, last) - b.unsqueeze(1)) / slopes.gather(1, last)).clamp_min(0)
    uniform = (2 * upward - 1) * length
    length = length.masked_fill(~is_inside, math.inf)
    return torch.where(is_uniform, uniform, to_corner.clamp(-length, length)) * is_used


def project_l2(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return what `project_linf` returns, for steps that are shortest in the L2 norm."""
    huge = 1e12
    gap = (w * points).sum(1) - b
    w = w * _sign(gap)
    gap = gap.abs()
    size = w.abs()
    is_used = (size > 1e-8).to(w.dtype)
    limits = torch.maximum(points / w, (points - 1) / w).clamp(-huge, huge)
    limits = limits.masked_fill(size < 1e-8, huge)
    limits = torch.where(limits == -huge, -limits, limits)
    reached, order = limits.sort(dim=1)
    following = torch.nn.functional.pad(reached[:, 1:], (0, 1))
    reached = reached.masked_fill(reached == huge, 0)
    following = following.masked_fill(following == huge, 0)

    squares = (w**2).gather(1, order)
    total = squares.sum(dim=1, keepdim=True)
    remaining = total - squares.cumsum(1)
    to_corner = -(limits * w) * is_used
    first = -total * reached[:, :1]
    values = torch.cat([first, ((reached - following) * remaining).cumsum(1) + first], dim=1)

    gap = gap.unsqueeze(1)
    is_straight = values[:, :1] + gap < 0
    is_corner = (to_corner * w).sum(1, keepdim=True) + gap > 0
    index = _bisect(values[:, :-1] + gap > 0)
    slope = remaining.gather(1, index)
    length = (values.gather(1, index) + gap) / slope + reached.gather(1, index)
    length = length.masked_fill(slope == 0, 0)
    is_kept = (length > limits).to(w.dtype)
    bent = to_corner * is_kept - length * w * (1 - is_kept)
    step = torch.where(is_straight, -(gap / total) * w, torch.where(is_corner, to_corner, bent))
    return step * is_used


def _sign(gap: Tensor) -> Tensor:
    """Return 1 where `gap` (R,) is at least zero, else -1, as (R, 1)."""
    return (2 * (gap >= 0).to(gap.dtype) - 1).unsqueeze(1)


def _bisect(holds: Tensor) -> Tensor:
    """Return where a bisection of each row of `holds` (R, D) ends, as indices (R, 1).

    This is the last index at which it holds, if it holds up to there. Where rounding makes it hold
    elsewhere too, the result depends on the indices that a bisection visits, in this order.
    """
    levels, ends = _bisection(holds.shape[1], holds.device)
    path = torch.zeros(len(holds), 1, dtype=torch.int64, device=holds.device)
    for middles in levels:
        path = torch.add(holds.gather(1, middles[path]), path, alpha=2)
    return ends[path]


@lru_cache(maxsize=8)
def _bisection(size: int, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the indices that a bisection of `size` values may visit, and where it may end.

    The first has a tensor per step. In it, an index is at the position whose binary digits are the
    values that were found before.
    """
    low, high = np.zeros(1, dtype=np.int64), np.full(1, size - 1)
    levels = []
    for _ in range(math.ceil(math.log2(size))):
        middle = (low + high) // 2
        levels.append(torch.from_numpy(middle).to(device))
        low = np.stack([low, middle], axis=1).ravel()
        high = np.stack([middle, high], axis=1).ravel()
    return tuple(levels), torch.from_numpy(low).to(device)
