"""Training curves: loss and validation accuracy by epoch, seeds as a band."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adrbench.config.method import Weights
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.style import BLUE, GREEN, INK, ORANGE, count_epochs
from adrbench.report.places import Place
from adrbench.results.best_epoch import best_row
from adrbench.results.history import HistoryRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLORS: dict[Weights, str] = {"student": BLUE, "average": ORANGE}
_LABELS: dict[Weights, str] = {"student": "student", "average": "EMA"}
_STYLES = {"robust": "-", "clean": "--"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """The histories of runs that differ only in the seed; `selected` weights chose the best."""

    histories: Sequence[Sequence[HistoryRow]]
    selected: Weights

    @property
    def weights(self) -> list[Weights]:
        """The sets of weights that every epoch has."""
        rows = [row for history in self.histories for row in history]
        return [name for name in _COLORS if all(name in row.counts for row in rows)]

    def stack(self, value: Callable[[HistoryRow], float]) -> "npt.NDArray[np.float64]":
        """Return a value of the epochs that all runs have, (num_runs, num_epochs)."""
        import numpy as np

        num_epochs = min(map(len, self.histories))
        return np.array([[value(row) for row in own[:num_epochs]] for own in self.histories])

    def find_best(self) -> list[int]:
        """Return the best epoch of the selected weights of each run, from 1."""
        return [best_row(history, self.selected).epoch for history in self.histories]


def training_chart(curves: Curves, name: str, place: Place, title: str, settings: str) -> Chart:
    """Return accuracies above the training loss, with the best epochs and the last marked."""
    num_runs, best = len(curves.histories), curves.find_best()
    epochs = f"{min(best)}" if len(set(best)) == 1 else f"{min(best)} to {max(best)}"
    select = curves.histories[0][0].select
    split = " Chosen on test images." if select == "test" else ""

    def draw(canvas: "Canvas") -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for weights in curves.weights:
            for kind, style in _STYLES.items():
                label = f"{_LABELS[weights]}, {'PGD' if kind == 'robust' else kind}"
                _draw_band(
                    upper, curves.stack(_accuracy(weights, kind)), _COLORS[weights], style, label
                )
        for epoch in best:
            upper.axvline(epoch, color=INK, linewidth=0.8, linestyle=":")
        upper.set_ylabel("accuracy (%)")
        upper.set_ylim(bottom=0)
        _draw_band(lower, curves.stack(lambda row: row.train_loss), GREEN, "-", "")
        lower.set_ylabel("loss")
        count_epochs(lower)
        canvas.legend(loc="outside upper left", ncols=2, columnspacing=1)

    runs = "one run" if num_runs == 1 else f"{num_runs} runs"
    return Chart(
        name=name,
        kind="training",
        place=place,
        title=title,
        description="Accuracy during training, dashed without an attack and solid under PGD, and "
        "below it the training loss. Dotted lines mark the best epochs, bands the range over "
        "seeds.",
        caption=f"{runs[0].upper()}{runs[1:]}; best epoch {epochs}.{split}{settings}",
        draw=draw,
        height=4.2,
    )


def _accuracy(weights: Weights, kind: str) -> Callable[[HistoryRow], float]:
    def value(row: HistoryRow) -> float:
        counts = row.counts[weights]
        correct = counts.robust_correct if kind == "robust" else counts.clean_correct
        return 100 * correct / row.select_n if row.select_n else math.nan

    return value


def _draw_band(
    axes: "Axes", values: "npt.NDArray[np.float64]", color: str, style: str, label: str
) -> None:
    epochs = range(1, values.shape[1] + 1)
    axes.plot(epochs, values.mean(0), style, color=color, label=label or None)
    axes.plot([epochs[-1]], [values.mean(0)[-1]], "o", color=color, markersize=4)
    if len(values) > 1:
        axes.fill_between(
            epochs, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0
        )
