"""Which epoch of a training run is the best."""

from collections.abc import Sequence

from adrbench.config.method import Weights
from adrbench.results.history import Criterion, HistoryRow


def best_row(history: Sequence[HistoryRow], weights: Weights) -> HistoryRow:
    """Return the best epoch of `weights`: the first of those with the highest accuracy.

    The accuracy is that of the run's criterion; the other of clean and robust breaks ties.
    """

    def score(row: HistoryRow) -> tuple[int, int]:
        counts = row.counts[weights]
        other: Criterion = "clean" if row.criterion == "robust" else "robust"
        return counts.of(row.criterion), counts.of(other)

    return max(history, key=score)
