"""Holm's correction."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.report.p_values import correct

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_three_by_hand() -> None:
    """3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not be smaller than the 0.06 before it."""
    assert correct([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct([0.02]) == [0.02]
    assert correct([0.5, 0.9]) == [1.0, 1.0]
    assert correct([]) == []


@given(probabilities)
def test_what_is_rejected_is_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    """Holm: compare the smallest with 0.05 / m, the next with 0.05 / (m - 1), and stop at one."""
    remaining, rejected = sorted(p_values), 0
    while remaining and remaining[0] * len(remaining) <= 0.05:
        remaining.pop(0)
        rejected += 1
    assert sum(p <= 0.05 for p in correct(p_values)) == rejected


@given(probabilities)
def test_it_is_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for own, corrected in zip(p_values, correct(p_values), strict=True):
        assert own <= corrected <= min(1, len(p_values) * own)
