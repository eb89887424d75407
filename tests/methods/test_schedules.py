"""Schedules against arithmetic by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.methods.schedules import cosine, steps


def test_cosine_by_hand() -> None:
    """From 2.5 to 2.0 over 4 steps: c = 1, (1 + sqrt 1/2)/2, 1/2, (1 - sqrt 1/2)/2, 0."""
    anneal = cosine(2.5, 2.0, 4)
    root = math.sqrt(0.5)
    expected = [2.5, 2.0 + 0.5 * (1 + root) / 2, 2.25, 2.0 + 0.5 * (1 - root) / 2, 2.0]
    assert [anneal(step) for step in range(5)] == pytest.approx(expected, abs=1e-15)


def test_cosine_stays_at_its_end_beyond_the_run() -> None:
    """Not clamped, step 5 of 4 would be 2.0 + 0.5 (1 + cos(5 pi / 4)) / 2 = 2.0 + 0.25 - 0.1768."""
    anneal = cosine(2.5, 2.0, 4)
    assert [anneal(step) for step in (4, 5, 8, 1000)] == [2.0] * 4


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 1000))
def test_cosine_stays_between_its_ends_and_never_turns(
    start: float, end: float, total: int
) -> None:
    values = [cosine(start, end, total)(step) for step in range(2 * total)]
    low, high = min(start, end), max(start, end)
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    ordered = sorted(values, reverse=start > end)
    assert values == pytest.approx(ordered, abs=1e-9)


def test_the_factor_applies_from_the_milestone_on() -> None:
    rate = steps(0.1, [3, 5], 0.1)
    assert [rate(step) for step in range(7)] == pytest.approx(
        [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
