"""Rows of points with their intervals: what several figures are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adrbench.report.figures.style import shorten
from adrbench.report.statistics import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches of a row, and of the axis, title and legend of a figure of rows.
ROW, FRAME = 0.24, 1.15


def draw_points(
    axes: "Axes",
    figures: Sequence[Figure | None],
    *,
    label: str,
    color: str,
    marker: str,
    offset: float = 0.0,
) -> None:
    """Draw the figures of a column, one in each row, moved by `offset` rows."""
    known = [(i + offset, figure) for i, figure in enumerate(figures) if figure is not None]
    bounds = [figure.interval or (figure.mean, figure.mean) for _, figure in known]
    places = [place for place, _ in known]
    lows, highs = [low for low, _ in bounds], [high for _, high in bounds]
    axes.hlines(places, lows, highs, color=color, linewidth=1.2, alpha=0.6)
    means = [figure.mean for _, figure in known]
    axes.plot(means, places, marker, color=color, label=shorten(label) or None)
