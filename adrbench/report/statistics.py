"""The numbers in tables: accuracies over training seeds, differences, 95 % intervals.

Figures are in percent (gaps in points), derived from counts and rounded to 1e-6, so that 5,106 of
10,000 equals a published 51.06.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

DIGITS = 6
Z_95 = NormalDist().inv_cdf(0.975)  # 1.95996


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over training seeds, in percent, points, or the unit of a measure of outputs.

    `std` is the sample standard deviation over seeds, None for one seed. `correct` holds the
    count of each seed, in the order of `seeds`, each out of `n` images; a difference has no
    counts. `interval` is that of Wilson for an accuracy, that of `two_way_interval` for a
    difference between methods, that of `outputs.bootstrap` for a measure of outputs; a gap has
    none. A seed is None for weights of unknown origin.
    """

    mean: float
    std: float | None
    n: int
    seeds: tuple[int | None, ...]
    correct: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean of seconds or rates and their sample standard deviation, None for a single value."""

    mean: float
    std: float | None


@dataclass(frozen=True, kw_only=True)
class PValue:
    """A probability from 0 to 1, corrected over a family; tables never round it to 0.

    `uncorrected` is the p-value of this comparison alone, one of `comparisons`.
    """

    p: float
    uncorrected: float
    comparisons: int


def wilson_interval(correct: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of `correct` out of `n`, as fractions of 1; 95 % for z.

    With k of n correct its centre is (k + z^2/2) / (n + z^2) and its half width
    z sqrt(k (n - k) / n + z^2/4) / (n + z^2). For 50 of 100, z = 1.95996: z^2 = 3.84146, centre
    51.92073 / 103.84146 = 0.5, half width 1.95996 sqrt(25 + 0.96036) / 103.84146 = 0.09617, so
    [0.40383, 0.59617].

    Raises:
        ValueError: when `n` is not positive or `correct` is not within 0 and `n`.

    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct should lie within 0 and n, and n be positive: {correct} of {n}")
    scale = n + z * z
    centre = (correct + z * z / 2) / scale
    half = z * math.sqrt(correct * (n - correct) / n + z * z / 4) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(correct: Mapping[int | None, int], n: int) -> Figure | None:
    """Return the accuracy of counts by seed, each out of the same `n` images; None without any.

    The interval of several seeds is that of the mean accuracy over n images. The images are the
    same for every seed, so pooling the counts would overstate the amount of data; the spread
    between seeds is in `std`, not in the interval.
    """
    if not correct or n == 0:
        return None
    mean_count = min(fmean(correct.values()), n)  # beyond 2**53 a float may round up
    low, high = wilson_interval(mean_count, n)
    mean, std = _mean_and_deviation([100 * count / n for count in correct.values()])
    return Figure(
        mean=mean,
        std=std,
        n=n,
        seeds=tuple(correct),
        correct=tuple(correct.values()),
        interval=(round(100 * low, DIGITS), round(100 * high, DIGITS)),
    )


def difference(
    first: Mapping[int | None, int], second: Mapping[int | None, int], n: int
) -> Figure | None:
    """Return first - second in points over the seeds that have both; None without any."""
    seeds = tuple(seed for seed in first if seed in second)
    if not seeds or n == 0:
        return None
    mean, std = _mean_and_deviation([100 * (first[seed] - second[seed]) / n for seed in seeds])
    return Figure(mean=mean, std=std, n=n, seeds=seeds)


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and deviation of the finite numbers among `values`; None without any."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    mean, std = _mean_and_deviation(known)
    return Spread(mean=mean, std=std)


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    deviation = round(stdev(values), DIGITS) if len(values) > 1 else None
    return round(fmean(values), DIGITS) + 0.0, deviation  # + 0.0 makes 0 of -0
