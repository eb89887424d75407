"""Figures of accuracies: by attack, best beside last epoch, by radius."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adrbench.config.declare import format_eps
from adrbench.report import columns as c
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.points import FRAME, ROW, draw_points
from adrbench.report.figures.style import (
    INK,
    MARKERS,
    MOST_ROWS,
    MUTED,
    SERIES,
    describe_cut,
    figures_of,
    label_rows,
    shorten,
)
from adrbench.report.places import Place
from adrbench.report.row_names import name_rows
from adrbench.report.statistics import Figure
from adrbench.report.tables import Column, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: More lines than this cannot be told apart.
MOST_LINES = len(SERIES)
MOST_ATTACKS = len(MARKERS) - 1


def accuracy_chart(table: Table, name: str, place: Place) -> Chart | None:
    """Return clean and robust accuracies as points with their intervals; None without an attack."""
    rows = table.rows[:MOST_ROWS]
    attacks = [column for column in table.columns if column.suite]
    if not attacks:
        return None
    columns = [c.CLEAN, *attacks[-MOST_ATTACKS:]]  # the last are the strongest

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for column, color, marker in zip(columns, (INK, *SERIES), MARKERS, strict=False):
            figures = figures_of(rows, column)
            draw_points(axes, figures, label=column.label, color=color, marker=marker)
        label_rows(axes, name_rows(rows))
        axes.set_xlabel("accuracy (%)")
        axes.set_xlim(left=0)
        canvas.legend(loc="outside upper left", ncols=4, handletextpad=0.2, columnspacing=1)

    return Chart(
        name=name,
        kind="accuracy",
        place=place,
        title="Clean and robust accuracy",
        description="Points are means over training seeds, lines 95 % intervals over test images."
        + describe_cut(len(table.rows))
        + describe_cut(len(attacks), MOST_ATTACKS, what="attacks"),
        draw=draw,
        height=FRAME + ROW * len(rows),
    )


def overfitting_chart(table: Table, name: str, place: Place) -> Chart:
    """Return the best and the last epoch of each row, joined by a line."""
    pairs = [row for row in table.rows if all(row.cells.get(one.key) for one in (_BEST, _LAST))]
    rows = pairs[:MOST_ROWS]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        best, last = (figures_of(rows, column) for column in (_BEST, _LAST))
        for i, (one, other) in enumerate(zip(best, last, strict=True)):
            if one and other:
                axes.plot([one.mean, other.mean], [i, i], color=MUTED, linewidth=1.2)
        _draw_ends(axes, best, "best epoch", SERIES[0], "o", markersize=8, markerfacecolor="none")
        _draw_ends(axes, last, "last epoch", SERIES[1], "s")
        label_rows(axes, name_rows(rows))
        axes.set_xlabel("robust accuracy (%)")
        canvas.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1)

    return Chart(
        name=name,
        kind="overfitting",
        place=place,
        title="Robust overfitting",
        description="Robust accuracy at the best and at the last epoch; a last epoch to the left "
        "of the best one has overfitted." + describe_cut(len(pairs)),
        draw=draw,
        height=FRAME + ROW * len(rows),
    )


def _draw_ends(
    axes: "Axes",
    figures: Sequence[Figure | None],
    label: str,
    color: str,
    marker: str,
    **look: Any,
) -> None:
    known = [(i, figure.mean) for i, figure in enumerate(figures) if figure is not None]
    means = [mean for _, mean in known]
    axes.plot(means, [i for i, _ in known], marker, color=color, label=label, **look)


def radius_chart(table: Table, name: str, place: Place) -> Chart:
    """Return robust accuracy against the radius, a line for each row."""
    rows = table.rows[:MOST_LINES]
    columns = [column for column in table.columns if column.eps is not None]
    names = name_rows(rows)

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for row, label, color, marker in zip(rows, names, SERIES, MARKERS, strict=False):
            look = {"color": color, "marker": marker, "label": shorten(label)}
            _draw_radii(axes, row, columns, look)
        radii = [column.eps for column in columns if column.eps is not None]
        axes.set_xticks([0, *radii], ["0", *map(format_eps, radii)])
        axes.set_xlabel("eps")
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(bottom=0)
        canvas.legend(loc="outside upper left", ncols=2, columnspacing=1)

    return Chart(
        name=name,
        kind="radius",
        place=place,
        title="Accuracy against eps",
        description="Bands are 95 % intervals over test images; at 0, the clean accuracy."
        + describe_cut(len(table.rows), MOST_LINES),
        draw=draw,
        height=3.6,
    )


def _draw_radii(axes: "Axes", row: Row, columns: Sequence[Column], look: Mapping[str, Any]) -> None:
    cells = [(0.0, row.cells.get(c.CLEAN.key))]
    cells += [(column.eps or 0.0, row.cells.get(column.key)) for column in columns]
    known = [(eps, cell) for eps, cell in cells if isinstance(cell, Figure)]
    radii = [eps for eps, _ in known]
    axes.plot(radii, [cell.mean for _, cell in known], **look)
    bounds = [cell.interval or (cell.mean, cell.mean) for _, cell in known]
    lows, highs = [low for low, _ in bounds], [high for _, high in bounds]
    axes.fill_between(radii, lows, highs, color=look["color"], alpha=0.15, linewidth=0)


_BEST = next(column for column in c.OVERFITTING if column.key == "best")
_LAST = next(column for column in c.OVERFITTING if column.key == "last")
