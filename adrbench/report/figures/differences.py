"""Paired comparisons as a forest plot: each difference with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adrbench.report import columns as c
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.points import FRAME, ROW
from adrbench.report.figures.style import BLUE, MOST_ROWS, MUTED, describe_cut, label_rows
from adrbench.report.places import Place
from adrbench.report.row_names import name_rows
from adrbench.report.significance import LEVEL, is_significant
from adrbench.report.statistics import Figure, PValue
from adrbench.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def difference_chart(rows: Sequence[Row], name: str, place: Place, title: str) -> Chart:
    """Return the differences in `rows`, which are of a table of comparisons.

    Filled points are of comparisons whose corrected p-value is below 5 %.
    """
    shown = [row for row in rows if isinstance(row.cells.get("difference"), Figure)][:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.axvline(0, color=MUTED, linewidth=1)
        for i, row in enumerate(shown):
            figure = row.cells["difference"]
            assert isinstance(figure, Figure)
            color = BLUE if is_significant(row) else MUTED
            low, high = figure.interval or (figure.mean, figure.mean)
            axes.plot([low, high], [i, i], color=color, linewidth=1.4)
            face = color if is_significant(row) else "none"
            marker = "o" if isinstance(row.cells.get("p"), PValue) else "x"
            axes.plot([figure.mean], [i], marker, color=color, markerfacecolor=face)
        label_rows(axes, name_rows(shown, without=(c.SUITE, c.CHECKPOINT)))
        axes.set_xlabel("difference (points)")

    return Chart(
        name=name,
        kind="differences",
        place=place,
        title=title,
        description="Points to the right of 0 favor the first method. Lines are 95 % intervals in "
        f"which seeds and images are both random{_describe_single(shown)}; filled points are "
        f"significant (corrected p below {LEVEL:g}), crosses were not tested."
        + describe_cut(len(rows)),
        draw=draw,
        height=FRAME - 0.2 + ROW * len(shown),
    )


def _describe_single(rows: Sequence[Row]) -> str:
    """Return what the intervals of comparisons over one seed are, if there are any."""
    numbers = [row.cells.get(c.SEEDS.key) == 1 for row in rows]
    return "" if not any(numbers) else ", or of one seed, only images"
