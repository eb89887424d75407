"""Holm's correction of the p-values of a family of comparisons."""

from collections.abc import Sequence


def correct(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family, in their order, corrected by Holm's procedure (1979).

    The i-th smallest of m, counted from 0, is multiplied by m - i; none is smaller than one
    before it, or larger than 1. 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06.
    """
    m = len(p_values)
    corrected = [0.0] * m
    highest = 0.0
    for i, position in enumerate(sorted(range(m), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (m - i) * p_values[position]))
        corrected[position] = highest
    return corrected
