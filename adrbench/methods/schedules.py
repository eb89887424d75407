"""Schedules: pure functions from an optimization step (0, 1, 2, ...) to a value.

A schedule has no state, so a resumed run uses the same values as an uninterrupted one.
"""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def cosine(start: float, end: float, total_steps: int) -> Schedule:
    """Return half a cosine from `start` at step 0 to `end` at step `total_steps`.

    This is the annealing of ADR (Wu et al., ICLR 2024): with c(s) = (1 + cos(pi s / S)) / 2 the
    value is end + (start - end) c(s). The last step of a run, S - 1, is just short of `end`, and
    the value stays at `end` after step S.
    """

    def value(step: int) -> float:
        angle = math.pi * min(step, total_steps) / total_steps
        return end + (start - end) * (1 + math.cos(angle)) / 2

    return value


def steps(value: float, milestones: Sequence[int], factor: float) -> Schedule:
    """Return `value`, multiplied by `factor` from each step in `milestones` on."""
    return lambda step: value * factor ** sum(step >= milestone for milestone in milestones)
