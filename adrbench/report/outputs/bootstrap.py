"""95 % intervals of measures of outputs, with training seeds and test images both random.

The images are resampled; all seeds, which have the same images, get the same resamples. For k seeds
and n images, this estimates the terms of the variance of `two_way_interval` that images contribute
to, without assuming that a measure is a mean over images:

- v_i / n is the variance of the mean over seeds over the resamples;
- v_r / (k n) is the variance of the seeds' deviations within a resample, averaged over resamples;
- v_s / k comes from the k values themselves. Seeds are not resampled: of three seeds there are only
  ten different resamples, whose variance is a third too small on average.

The standard error, its degrees of freedom, and Student's t are then those of `two_way_interval`.
The interval extends by t standard errors below the value or, if that is lower, the value minus its
bias, and above the higher of the two. The bias is estimated by the mean of the resamples minus the
value (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 10): that of a mean is
0, while the expected calibration error is biased upwards.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from adrbench.report.outputs.predictions import Floats
from adrbench.report.two_way_interval import LEVEL, combine_variances

NUM_RESAMPLES = 1000
#: Resamples whose counts are converted at once, to 8 MB for 10,000 images.
CHUNK = 100
SEED = 0
#: A standard error below this, relative to values above 1, is one of 0 but for rounding.
ROUNDING = 1e-12


def resample_sums(contributions: Floats) -> Floats:
    """Return the sums over images of `contributions` (n, p) in each resample, (NUM_RESAMPLES, p).

    The resamples of n images are always the same.
    """
    counts = _draw_counts(len(contributions))
    parts = np.split(counts, NUM_RESAMPLES // CHUNK)
    return np.concatenate([part.astype(np.float64) @ contributions for part in parts])


@lru_cache(maxsize=1)
def _draw_counts(n: int) -> npt.NDArray[np.uint8]:
    """Return how often each of n images is in each resample, (NUM_RESAMPLES, n)."""
    generator = np.random.default_rng(SEED)
    counts = np.empty((NUM_RESAMPLES, n), np.uint8)
    for own in counts:
        own[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    return counts


def estimate_interval(values: Floats, resampled: Floats, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of `values` (k,), one for each seed.

    `resampled` (r, k) has their values in r resamples of the n images; resamples in which a value
    is undefined (nan) are left out. With one seed, the interval is over images only, for these
    weights. None if the standard error is 0 or unknown.
    """
    from scipy.special import stdtrit  # loaded only where it is needed

    resampled = resampled[np.isfinite(resampled).all(axis=1)]
    k = len(values)
    if n < 2 or len(resampled) < 2:
        return None
    means = resampled.mean(axis=1)
    of_images = float(means.var(ddof=1))
    of_seeds = of_residual = 0.0
    if k > 1:
        of_seeds = float(values.var(ddof=1)) / k
        of_residual = float((resampled - values).var(axis=1, ddof=1).mean()) / k
    error, freedom = combine_variances((of_seeds, of_images, of_residual), k, n)
    if error <= ROUNDING * max(1.0, abs(float(values.mean()))):
        return None
    value = float(values.mean())
    corrected = 2 * value - float(means.mean())
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    return min(value, corrected) - half, max(value, corrected) + half
