"""Intervals, means, deviations and gaps, by hand."""

import math
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.config.declare import format_eps
from adrbench.report.statistics import accuracy, difference, wilson_interval
from report_records import (
    figure,
)


def test_wilson_interval_by_hand() -> None:
    """50 of 100, z = 1.95996, is worked in the docstring; 0 of 10 and 10 of 10 are here.

    For k = 0 the interval is [0, z^2 / (n + z^2)] = [0, 3.84146 / 13.84146] = [0, 0.27753].
    """
    assert wilson_interval(50, 100) == pytest.approx((0.40383, 0.59617), abs=5e-6)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=5e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=5e-6)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 10), (11, 10)])
def test_wilson_interval_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct should lie within 0 and n"):
        wilson_interval(correct, n)


@given(n=st.integers(1, 100_000), share=st.floats(0, 1))
def test_wilson_interval_holds_its_figure_and_is_symmetric(n: int, share: float) -> None:
    correct = round(share * n)
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert wilson_interval(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert (
        high - low > wilson_interval(4 * correct, 4 * n)[1] - wilson_interval(4 * correct, 4 * n)[0]
    )


def test_accuracy_over_seeds_by_hand() -> None:
    """50, 52 and 57 of 100: mean 53, squares of deviations 9 + 1 + 16 = 26, 26 / 2 = 13."""
    found = figure(accuracy({0: 50, 1: 52, 2: 57}, 100))
    assert found.mean == 53.0
    assert found.std == pytest.approx(math.sqrt(13), abs=1e-6)
    assert (found.n, found.seeds, found.correct) == (100, (0, 1, 2), (50, 52, 57))
    low, high = wilson_interval(53, 100)
    assert found.interval == pytest.approx((100 * low, 100 * high), abs=1e-6)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=10))
def test_the_deviation_is_that_of_the_percentages(counts: list[int]) -> None:
    found = figure(accuracy(dict(enumerate(counts)), 10_000))
    assert found.std == round(stdev([count / 100 for count in counts]), 6)


def test_one_seed_has_no_deviation_and_no_seed_has_no_figure() -> None:
    assert figure(accuracy({0: 50}, 100)).std is None
    assert accuracy({}, 100) is None
    assert accuracy({0: 0}, 0) is None


def test_gap_is_taken_seed_by_seed() -> None:
    """Seeds 0 and 1 have both: gaps 10 and 4 points, mean 7, deviation 6 / sqrt(2)."""
    found = figure(difference({0: 50, 1: 48, 2: 99}, {0: 40, 1: 44, 3: 1}, 100))
    assert found.mean == 7.0
    assert found.std == pytest.approx(6 / math.sqrt(2), abs=1e-6)
    assert found.seeds == (0, 1)
    assert difference({0: 50}, {1: 40}, 100) is None


@pytest.mark.parametrize(
    ("eps", "shown"),
    [(8 / 255, "8/255"), (0.0313725, "8/255"), (0.031, "0.031"), (0.5, "0.5"), (1.0, "1")],
)
def test_eps_is_shown_as_a_fraction_of_255_only_where_it_is_one(eps: float, shown: str) -> None:
    assert format_eps(eps) == shown


def test_a_difference_of_zero_is_not_negative() -> None:
    """-1, -6, -3, 10 and 0 more images make 0; in floats a little less, which rounds to -0."""
    first: dict[int | None, int] = dict(enumerate([263, 246, 253, 258, 247]))
    second: dict[int | None, int] = dict(enumerate([264, 252, 256, 248, 247]))
    assert str(figure(difference(first, second, 360)).mean) == "0.0"
