"""The values of a measure of outputs by training seed, and figures made of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adrbench.report.outputs.bootstrap import estimate_interval
from adrbench.report.outputs.measures import Measure
from adrbench.report.outputs.predictions import Floats
from adrbench.report.statistics import DIGITS, Figure, spread


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedValues:
    """The values of `measure` on n images, (k,), one for each of `seeds`, nan where undefined.

    `resampled` (r, k) are those on each resample of the images, which are the same for all models.
    `lowest` and `highest` are the bounds of the values; for a difference, `lowest` is negative.
    """

    measure: Measure[Any]
    seeds: tuple[int | None, ...]
    n: int
    values: Floats
    resampled: Floats
    lowest: float = 0.0

    def minus(self, other: "SeedValues") -> "SeedValues":
        """Return the differences from `other`, of the same measure and images, for shared seeds.

        What chance makes of a resample is the same for both, and so cancels where they are alike.
        """
        shared = [seed for seed in self.seeds if seed in other.seeds]
        own = [self.seeds.index(seed) for seed in shared]
        others = [other.seeds.index(seed) for seed in shared]
        return SeedValues(
            measure=self.measure,
            seeds=tuple(shared),
            n=self.n,
            values=self.values[own] - other.values[others],
            resampled=self.resampled[:, own] - other.resampled[:, others],
            lowest=-self.measure.highest,
        )

    def figure(self) -> Figure | None:
        """Return the mean over seeds where the measure is defined, as in reports; None without any.

        Its interval does not exceed the bounds.
        """
        is_defined = np.isfinite(self.values)
        found = spread((self.measure.scale * self.values[is_defined]).tolist())
        if found is None:
            return None
        interval = estimate_interval(self.values[is_defined], self.resampled[:, is_defined], self.n)
        return Figure(
            mean=found.mean,
            std=found.std,
            n=self.n,
            seeds=tuple(s for s, own in zip(self.seeds, is_defined, strict=True) if own),
            interval=None if interval is None else self._bound(*interval),
        )

    def _bound(self, low: float, high: float) -> tuple[float, float]:
        """Return an interval within the bounds, in the unit of reports."""
        low, high = (min(max(end, self.lowest), self.measure.highest) for end in (low, high))
        scale = self.measure.scale
        return round(scale * low, DIGITS), round(scale * high, DIGITS)
