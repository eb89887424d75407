"""Intervals of measures of outputs: two-way, deterministic, and right about as often as 95 %."""

import numpy as np
import pytest

from adrbench.report.outputs.bootstrap import NUM_RESAMPLES, estimate_interval, resample_sums
from adrbench.report.outputs.measures import CALIBRATION
from adrbench.report.outputs.predictions import Floats, Predictions
from adrbench.report.two_way_interval import estimate_difference

NUM_CLASSES = 5


def interval(measure: str, seeds: list[Predictions]) -> tuple[float, float]:
    """Return the interval of a measure of the outputs of several seeds on the same images."""
    own = CALIBRATION[measure]
    contributions = np.stack([own.contribute(one) for one in seeds], axis=1)
    n, k, width = contributions.shape
    resampled = resample_sums(contributions.reshape(n, -1)).reshape(-1, k, width)
    values = own.compute(contributions.sum(axis=0), n)
    found = estimate_interval(values, own.compute(resampled, n), n)
    assert found is not None
    return found


def simulate(
    random: np.random.Generator, n: int, k: int, *, sharpness: float, spread: float
) -> list[Predictions]:
    """Return the outputs of k seeds, `sharpness` times as sharp as the truth on average.

    The factor of a seed is log-normal with the standard deviation `spread`.
    """
    truth = 1.5 * random.normal(size=(n, NUM_CLASSES))
    cumulated = np.exp(truth).cumsum(axis=1)
    drawn = random.random((n, 1)) * cumulated[:, -1:]
    labels = (cumulated < drawn).sum(axis=1)
    factors = sharpness * np.exp(spread * random.normal(size=k))
    return [
        Predictions(factor * (truth + 0.3 * random.normal(size=truth.shape)), labels)
        for factor in factors
    ]


def true_value(measure: str, *, sharpness: float, spread: float) -> float:
    seeds = simulate(np.random.default_rng(0), 4_000, 60, sharpness=sharpness, spread=spread)
    return float(np.mean([CALIBRATION[measure].of(one) for one in seeds]))


def test_the_interval_of_a_mean_is_that_of_the_two_way_analysis_of_variance() -> None:
    outcomes = np.random.default_rng(0).random((3, 400)) < [[0.5], [0.55], [0.6]]
    expected = estimate_difference(outcomes.astype(np.int8)).interval
    assert expected is not None
    contributions = outcomes.T.astype(float)
    values, resampled = contributions.mean(axis=0), resample_sums(contributions) / 400
    assert estimate_interval(values, resampled, 400) == pytest.approx(expected, abs=0.006)


def test_resamples_are_the_same_every_time_and_have_as_many_images() -> None:
    contributions = np.stack([np.ones(30), np.arange(30.0)], axis=1)
    sums = resample_sums(contributions)
    assert sums.shape == (NUM_RESAMPLES, 2)
    assert (sums[:, 0] == 30).all()
    assert np.array_equal(sums, resample_sums(contributions))
    assert sums[:, 1].mean() == pytest.approx(contributions[:, 1].sum(), rel=0.02)
    assert sums[:, 1].var() == pytest.approx(30 * contributions[:, 1].var(), rel=0.2)


def test_seeds_that_differ_widen_the_interval() -> None:
    seeds = simulate(np.random.default_rng(0), 500, 3, sharpness=1.5, spread=0.3)
    own = [interval("confidence", [one]) for one in seeds]
    low, high = interval("confidence", seeds)
    assert high - low > 2 * max(end - start for start, end in own)


def test_equal_seeds_are_not_more_images() -> None:
    (one,) = simulate(np.random.default_rng(0), 500, 1, sharpness=1.5, spread=0)
    low, high = interval("brier", [one])
    assert interval("brier", [one] * 3) == pytest.approx((low, high), abs=0.02 * (high - low))


def undefined(values: list[float], num_resamples: int) -> tuple[Floats, Floats]:
    """Return values with resamples, of which all but the first `num_resamples` are undefined."""
    resampled = np.random.default_rng(0).normal(values, 0.1, size=(100, len(values)))
    resampled[num_resamples:] = np.nan
    return np.array(values), resampled


def test_undefined_resamples_are_left_out() -> None:
    values, resampled = undefined([1.0], 50)
    found = estimate_interval(values, resampled, 20)
    assert found == estimate_interval(values, resampled[:50], 20)
    assert found is not None
    assert estimate_interval(*undefined([1.0], 1), 20) is None


def test_there_is_no_interval_of_one_image_or_without_variation() -> None:
    values, resampled = undefined([1.0, 1.2], 100)
    assert estimate_interval(values, resampled, 1) is None
    constant = np.full(3, 0.1)
    assert estimate_interval(constant, np.full((100, 3), 0.1 + 1e-17), 20) is None


@pytest.mark.parametrize(
    ("measure", "k", "least"), [("confidence", 1, 88), ("confidence", 3, 88), ("ece", 3, 80)]
)
def test_intervals_cover_the_true_value(measure: str, k: int, least: int) -> None:
    """At least `least` times in 100: at a coverage of 95 %, or 89 % of an ECE, rarely fewer.

    Percentiles of resamples of seeds and images cover the confidence of three seeds 85 times.
    """
    setting = {"sharpness": 1.4, "spread": 0.1 if k > 1 else 0.0}
    truth = true_value(measure, **setting)
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(100):
        low, high = interval(measure, simulate(random, 400, k, **setting))
        covered += low <= truth <= high
    assert covered >= least


def test_the_interval_of_the_calibration_error_extends_to_less_bias() -> None:
    """Of nearly calibrated models on 200 images, most of the ECE is bias."""
    random = np.random.default_rng(3)
    truth = true_value("ece", sharpness=0.95, spread=0)
    below, above, excess = [], [], []
    for _ in range(20):
        seeds = simulate(random, 200, 1, sharpness=0.95, spread=0)
        value = CALIBRATION["ece"].of(seeds[0])
        low, high = interval("ece", seeds)
        below.append(value - low)
        above.append(high - value)
        excess.append(value - truth)
    assert np.mean(excess) > 1.2 * np.mean(above)
    assert np.mean(excess) < np.mean(below)
