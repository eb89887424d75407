"""Paired comparisons as a forest plot: each difference with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adrbench.report import columns as c
from adrbench.report.figures.accuracy import FRAME, ROW
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.rows import MOST_ROWS, describe_cut, name_rows
from adrbench.report.figures.style import BLUE, MUTED, label_rows
from adrbench.report.statistics import Figure, PValue
from adrbench.report.tables import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: A corrected p-value below this is significant.
LEVEL = 0.05


def difference_chart(
    table: Table, rows: Sequence[Row], name: str, place: tuple[str, ...], title: str
) -> Chart:
    """Return the differences in `rows` of a table of comparisons.

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
            axes.plot([figure.mean], [i], "o", color=color, markerfacecolor=face)
        label_rows(axes, name_rows(table, shown, without=(c.SUITE, c.CHECKPOINT)))
        axes.set_xlabel("difference (points)")

    return Chart(
        name=name,
        kind="differences",
        place=place,
        title=title,
        description="Points to the right of 0 favor the first method. Lines are 95 % intervals in "
        "which seeds and images are both random; filled points are significant (corrected p below "
        f"{LEVEL:g})." + describe_cut(len(rows)),
        draw=draw,
        height=FRAME - 0.2 + ROW * len(shown),
    )


def is_significant(row: Row) -> bool:
    """Return whether the corrected p-value of a comparison is below 5 %."""
    p = row.cells.get("p")
    return isinstance(p, PValue) and p.p < LEVEL
