"""Which attack of a suite did the work: images by what fooled them first."""

from typing import TYPE_CHECKING

from adrbench.report.figures.accuracy import FRAME, ROW
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.rows import MOST_ROWS, describe_cut, figures_of, name_rows
from adrbench.report.figures.style import GRID, PAPER, SERIES, label_rows, shorten
from adrbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def survivors_chart(table: Table, name: str, place: tuple[str, ...]) -> Chart:
    """Return a stacked bar for each row of a table of survivors, from robust to misclassified."""
    rows = table.rows[:MOST_ROWS]
    columns = [column for column in table.columns if column.role == "value"]
    misclassified, *attacks, robust = columns
    order = [(robust, SERIES[0]), *zip(attacks[::-1], SERIES[1:], strict=False)]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        left = [0.0] * len(rows)
        for column, color in [*order, (misclassified, GRID)]:
            widths = [figure.mean if figure else 0.0 for figure in figures_of(rows, column)]
            axes.barh(
                range(len(rows)),
                widths,
                left=left,
                height=0.72,
                color=color,
                edgecolor=PAPER,
                linewidth=0.6,
                label=shorten(column.label),
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        label_rows(axes, name_rows(table, rows))
        axes.set_xlabel("test images (%)")
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1, columnspacing=1)

    return Chart(
        name=name,
        kind="attacks",
        place=place,
        title="What fooled the images first",
        description="Each bar divides the test images into robust ones, those that an attack "
        "fooled, the last attack first, and those misclassified without an attack."
        + describe_cut(len(table.rows)),
        draw=draw,
        height=FRAME + ROW * len(rows),
    )
