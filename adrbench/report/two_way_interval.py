"""The difference between two methods, with training seeds and test images both random.

For seed s of k and image i of n let d[s, i] in {-1, 0, 1} be the outcome of the method minus that
of the reference. The model is a two-way crossed design with random effects and one observation a
cell, d[s, i] = difference + seed[s] + image[i] + residual[s, i] (Scheffe, The Analysis of Variance,
1959, chapter 7). The variance of the mean D is then

    var(seed) / k + var(image) / n + var(residual) / (k n).

With v_s and v_i the sample variances of the means of seeds and of images, and v_r the residual
mean square, E v_s = var(seed) + var(residual) / n, E v_i = var(image) + var(residual) / k and
E v_r = var(residual), so that v_s / k + v_i / n - v_r / (k n) estimates it without bias. It is no
smaller than v_s / k and v_i / n, its values where the other variance is estimated as 0. Its degrees
of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946), of the three independent mean squares,
and at least k - 1.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONFIDENCE, POWER = 0.95, 0.8
LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class DifferenceEstimate:
    """A difference of accuracies as a fraction of 1, and its uncertainty.

    With one seed, the standard error and the 95 % `interval` are over images only, and `p` and
    `detectable` are None. `p` is of the two-sided t-test of no difference; `detectable` is the
    smallest true difference that this test, at 5 %, finds with a power of 80 %, from the
    noncentral t distribution. If no mean of a seed or of an image differs from the others, the
    standard error is 0: `interval` and `detectable` are None, and so is `p` unless the mean is 0,
    which is no sign of a difference (p = 1).
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    interval: tuple[float, float] | None
    p: float | None
    detectable: float | None


def estimate_difference(d: "npt.NDArray[np.integer[Any]]") -> DifferenceEstimate:
    """Return the mean of `d` (k, n), integers by seed and image, and its uncertainty.

    For [[1, 1, 0], [0, 1, -1]] the mean is 1/3, v_s = 2/9, v_i = 7/12 and v_r = 1/6, so the
    squared standard error is 4/36 + 7/36 - 1/36 = 10/36, with 100 / (16 + 49/2 + 1/2) = 2.44
    degrees of freedom.

    Raises:
        ValueError: unless there are a seed and two images.

    """
    k, n = d.shape
    if k < 1 or n < 2:
        raise ValueError(f"d should have at least 1 seed and 2 images, not shape {d.shape}")
    d = d.astype("int64")
    mean = int(d.sum()) / (k * n)
    error, freedom = combine_variances(_variances_of_mean(d), k, n)
    return _infer(mean, error, freedom, has_seeds=k > 1)


def combine_variances(terms: tuple[float, float, float], k: int, n: int) -> tuple[float, float]:
    """Return the standard error of a mean over k seeds and n images, and its degrees of freedom.

    `terms` are v_s / k, v_i / n and v_r / (k n); with one seed the first and the last are 0.
    """
    of_seeds, of_images, of_residual = terms
    squared = max(of_seeds + of_images - of_residual, of_seeds, of_images)
    if k == 1 or not squared:
        return math.sqrt(squared), k - 1 if k > 1 else n - 1
    spread = of_seeds**2 / (k - 1) + of_images**2 / (n - 1)
    spread += of_residual**2 / ((k - 1) * (n - 1))
    return math.sqrt(squared), max(squared**2 / spread, k - 1)


def _variances_of_mean(d: "npt.NDArray[np.integer[Any]]") -> tuple[float, float, float]:
    """Return v_s / k, v_i / n and v_r / (k n); with one seed the first and the last are 0.

    The sums of squares times k n are whole numbers, so that rounding cannot make them negative.
    """
    k, n = d.shape
    squared_total = int(d.sum()) ** 2
    total = k * n * int((d * d).sum()) - squared_total
    seeds = k * int((d.sum(axis=1) ** 2).sum()) - squared_total
    images = n * int((d.sum(axis=0) ** 2).sum()) - squared_total
    residual = total - seeds - images
    cells = (k * n) ** 2
    of_images = images / cells / (n - 1)
    if k == 1:
        return 0.0, of_images, 0.0
    return seeds / cells / (k - 1), of_images, residual / cells / ((k - 1) * (n - 1))


def _infer(mean: float, error: float, freedom: float, *, has_seeds: bool) -> DifferenceEstimate:
    from scipy.special import nctdtrinc, stdtr, stdtrit  # loaded only where it is needed

    interval = p = detectable = None
    if error > 0:
        quantile = float(stdtrit(freedom, 1 - LEVEL / 2))
        interval = (mean - quantile * error, mean + quantile * error)
        if has_seeds:
            p = 2 * float(stdtr(freedom, -abs(mean) / error))
            detectable = float(nctdtrinc(freedom, 1 - POWER, quantile)) * error
    elif has_seeds and mean == 0:
        p = 1.0
    return DifferenceEstimate(
        mean=mean,
        standard_error=error,
        degrees_of_freedom=freedom,
        interval=interval,
        p=p,
        detectable=detectable,
    )
