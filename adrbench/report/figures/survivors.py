"""Which attack of a suite did the work: images by what fooled them first."""

from typing import TYPE_CHECKING

from adrbench.report.figures.chart import Chart
from adrbench.report.figures.points import FRAME, ROW
from adrbench.report.figures.style import (
    GRID,
    MOST_ROWS,
    PAPER,
    SERIES,
    describe_cut,
    figures_of,
    label_rows,
    shorten,
)
from adrbench.report.places import Place
from adrbench.report.row_names import name_rows
from adrbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: What distinguishes further attacks where there are more than colors.
HATCHES = ("", "//", "..", "xx", "--")


def survivors_chart(table: Table, name: str, place: Place) -> Chart:
    """Return a stacked bar for each row of a table of survivors, from robust to misclassified."""
    rows = table.rows[:MOST_ROWS]
    columns = [column for column in table.columns if column.role == "value"]
    misclassified, *attacks, robust = columns
    looks = [(color, hatch) for hatch in HATCHES for color in SERIES[1:]]
    parts = [
        (robust, (SERIES[0], "")),
        *zip(attacks[::-1], looks, strict=False),
        (misclassified, (GRID, "")),
    ]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        left = [0.0] * len(rows)
        for column, (color, hatch) in parts:
            widths = [figure.mean if figure else 0.0 for figure in figures_of(rows, column)]
            axes.barh(
                range(len(rows)),
                widths,
                left=left,
                height=0.72,
                color=color,
                hatch=hatch,
                edgecolor=PAPER,
                linewidth=0.6,
                label=shorten(column.label),
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        label_rows(axes, name_rows(rows))
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
