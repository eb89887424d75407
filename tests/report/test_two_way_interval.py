"""The interval of a difference with seeds and images both random, against other ways to get it."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from adrbench.report.two_way_interval import DifferenceEstimate, estimate_difference

Differences = npt.NDArray[np.integer[Any]]
UNGUARDED = np.array([[1, 1, 0], [0, 1, -1]])

shapes = st.tuples(st.integers(2, 5), st.integers(2, 8))
differences = shapes.flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 1)))


def explained(d: Differences, factors: list[npt.NDArray[Any]]) -> float:
    """Return the sum of squares about the mean that least squares explains by dummy variables."""
    columns = [np.ones(d.size), *(np.equal.outer(f, np.unique(f)).T.astype(float) for f in factors)]
    design = np.vstack(columns).T
    fitted = design @ np.linalg.lstsq(design, d.ravel().astype(float), rcond=None)[0]
    return float(((fitted - d.mean()) ** 2).sum())


def by_analysis_of_variance(d: Differences) -> tuple[float, float]:
    """Return standard error and degrees of freedom from variance components by least squares."""
    k, n = d.shape
    seeds, images = (index.ravel() for index in np.indices(d.shape))
    total = float(((d - d.mean()) ** 2).sum())
    residual_df = (k - 1) * (n - 1)
    squares = {
        "seed": explained(d, [seeds]) / (k - 1),
        "image": explained(d, [images]) / (n - 1),
        "residual": (total - explained(d, [seeds, images])) / residual_df,
    }
    of_seed = (squares["seed"] - squares["residual"]) / n
    of_image = (squares["image"] - squares["residual"]) / k
    variance = of_seed / k + of_image / n + squares["residual"] / (k * n)
    variance = max(variance, squares["seed"] / (k * n), squares["image"] / (k * n))
    df = {"seed": k - 1, "image": n - 1, "residual": residual_df}
    spread = sum((squares[name] / (k * n)) ** 2 / df[name] for name in squares)
    return math.sqrt(variance), max(variance**2 / spread, k - 1)


def test_two_seeds_and_three_images_by_hand() -> None:
    """Means of seeds 2/3 and 0, so v_s = 2/9; of images 1/2, 1 and -1/2, so v_i = 7/12.

    The residuals are +-(1/6, -1/3, 1/6), so v_r = (2 * 6/36) / 2 = 1/6. SE^2 =
    (2/9)/2 + (7/12)/3 - (1/6)/6 = (4 + 7 - 1)/36, and the degrees of freedom are
    10^2 / (4^2/1 + 7^2/2 + 1^2/2) = 100/41.
    """
    found = estimate_difference(UNGUARDED)
    assert found.mean == pytest.approx(1 / 3)
    assert found.standard_error == pytest.approx(math.sqrt(10 / 36))
    assert found.degrees_of_freedom == pytest.approx(100 / 41)
    t, error = stats.t(100 / 41), math.sqrt(10 / 36)
    low, high = 1 / 3 - t.ppf(0.975) * error, 1 / 3 + t.ppf(0.975) * error
    assert found.interval == pytest.approx((low, high))
    assert found.p == pytest.approx(2 * t.sf((1 / 3) / error))


def test_where_the_variance_of_images_is_estimated_as_negative_that_of_seeds_remains() -> None:
    """Means of seeds 2/3 and -1/3, so v_s = 1/2; of images 1/2, 0 and 0, v_i = 1/12; v_r = 1/2.

    1/4 + 1/36 - 1/12 = 7/36 is less than v_s / k = 9/36; its k - 1 = 1 degree of
    freedom.
    """
    found = estimate_difference(np.array([[1, 0, 1], [0, 0, -1]]))
    assert found.standard_error == pytest.approx(0.5)
    assert found.degrees_of_freedom == 1


@given(differences)
def test_the_closed_form_equals_an_analysis_of_variance_by_least_squares(d: Differences) -> None:
    found = estimate_difference(d)
    if found.standard_error == 0:
        assert all(len(np.unique(d.sum(axis=axis))) == 1 for axis in (0, 1))
        return
    error, df = by_analysis_of_variance(d)
    assert found.standard_error == pytest.approx(error, rel=1e-6)
    assert found.degrees_of_freedom == pytest.approx(df, rel=1e-6)


def test_a_large_design_equals_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(3, 1)) / 5 + rng.normal(size=60) + rng.normal(size=(3, 60))
    d = (latent > 1).astype(np.int8) - (latent < -1).astype(np.int8)
    found = estimate_difference(d)
    error, df = by_analysis_of_variance(d)
    assert (found.standard_error, found.degrees_of_freedom) == pytest.approx((error, df))
    assert 2 < found.degrees_of_freedom < 3 * 60


@given(differences, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_images_does_not_matter(d: Differences, random: Any) -> None:
    seeds, images = (random.sample(range(size), size) for size in d.shape)
    assert estimate_difference(d[np.ix_(seeds, images)]) == estimate_difference(d)


@given(differences)
def test_the_reverse_comparison_is_the_mirror_image(d: Differences) -> None:
    found, reverse = estimate_difference(d), estimate_difference(-d)
    assert reverse.mean == -found.mean
    assert (reverse.p, reverse.detectable) == (found.p, found.detectable)
    if found.interval and reverse.interval:
        assert reverse.interval == (-found.interval[1], -found.interval[0])


@given(differences)
def test_no_interval_is_narrower_than_if_only_seeds_or_only_images_were_random(
    d: Differences,
) -> None:
    k, n = d.shape
    squared = estimate_difference(d).standard_error ** 2
    for axis, count in ((1, k), (0, n)):
        assert squared >= d.mean(axis=axis).var(ddof=1) / count - 1e-12


def test_without_any_effect_of_images_it_is_the_t_test_of_the_seeds() -> None:
    d = np.repeat([[1], [0], [1], [1]], 50, axis=1)
    found = estimate_difference(d)
    expected = stats.ttest_1samp(d[:, 0], 0)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.degrees_of_freedom == pytest.approx(3)


def test_if_all_seeds_agree_it_is_the_t_test_of_the_images() -> None:
    image = np.array([1, 0, 0, -1, 1, 1, 0, 1, 0, 0])
    found = estimate_difference(np.tile(image, (4, 1)))
    expected = stats.ttest_1samp(image, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(9)


@given(differences)
def test_the_detectable_difference_is_found_four_times_in_five(d: Differences) -> None:
    found = estimate_difference(d)
    if found.detectable is None:
        assert found.standard_error == 0
        return
    freedom, noncentrality = found.degrees_of_freedom, found.detectable / found.standard_error
    threshold = stats.t.ppf(0.975, freedom)
    assert stats.nct.sf(threshold, freedom, noncentrality) == pytest.approx(0.8, abs=1e-4)


def test_one_seed_has_an_interval_over_images_and_no_p() -> None:
    image = np.array([1, 0, 0, -1, 1, 1, 0, 1, 0, 0])
    found = estimate_difference(image[None])
    interval = stats.ttest_1samp(image, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert (found.p, found.detectable) == (None, None)


@pytest.mark.parametrize("value", [-1, 0, 1])
@pytest.mark.parametrize("k", [1, 3])
def test_a_constant_difference_has_no_interval_and_without_it_p_is_one(value: int, k: int) -> None:
    assert estimate_difference(np.full((k, 7), value)) == DifferenceEstimate(
        mean=value,
        standard_error=0.0,
        degrees_of_freedom=2 if k == 3 else 6,
        interval=None,
        p=1.0 if k == 3 and value == 0 else None,
        detectable=None,
    )


@given(differences)
def test_degrees_of_freedom_are_from_those_of_the_seeds_to_those_of_all_cells(
    d: Differences,
) -> None:
    k, n = d.shape
    freedom = estimate_difference(d).degrees_of_freedom
    assert k - 1 <= freedom <= (k - 1) + (n - 1) + 1e-9


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 1)])
def test_too_few_seeds_or_images_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 seed and 2 images"):
        estimate_difference(np.zeros(shape, dtype=int))
