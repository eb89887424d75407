"""The look of all figures: colors, lines, labels, and how text from outside is drawn.

The colors of the series are those of Okabe and Ito (Color Universal Design, 2008), the light ones
darkened to a contrast of 3 to 1 on white. Readers with any color vision distinguish them, and
markers, line styles and hatches repeat what they say.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adrbench.report.cell_text import cut
from adrbench.report.statistics import Figure
from adrbench.report.tables import Column, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
AMBER, SKY, GRAY = "#b07a00", "#2b8cc4", "#7d8590"
SERIES = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GRAY)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
#: The colors of a page with a dark background, for each that matplotlib draws.
DARK = {
    INK: "#e6edf3",
    MUTED: "#9198a1",
    GRID: "#3d444d",
    PAPER: "#0d1117",
    BLUE: "#58a6e8",
    ORANGE: "#f0883e",
    GREEN: "#3fb98b",
    PINK: "#e19cc4",
    AMBER: "#f2bd4b",
    SKY: "#8fd3f7",
    GRAY: "#8c959f",
}
#: Longer labels are cut in figures; tables have them in full.
MOST_CHARACTERS = 44
#: A figure shows at most this many rows; tables have them all.
MOST_ROWS = 40

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "pdf.fonttype": 42,
}


@contextmanager
def styled(**changes: Any) -> Iterator[None]:
    """Draw with the style of this project, whatever the user's own matplotlib settings are."""
    import warnings

    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")  # the browser has others
        mpl.rcdefaults()
        settings: Any = mpl.rcParams
        settings.update(_SETTINGS | changes)
        yield


def shorten(text: str) -> str:
    """Return text from outside as a short label.

    A legend leaves out labels that begin with an underscore, so that these get an invisible
    character before it.
    """
    shown = cut(text, MOST_CHARACTERS)
    return f"\u200b{shown}" if shown.startswith("_") else shown


def figures_of(rows: Sequence[Row], column: Column) -> list[Figure | None]:
    """Return the figures of a column, None where it was not measured."""
    cells = [row.cells.get(column.key) for row in rows]
    return [cell if isinstance(cell, Figure) else None for cell in cells]


def describe_cut(count: int, most: int = MOST_ROWS, *, what: str = "rows") -> str:
    """Return a sentence on the items that a figure leaves out, if it does."""
    left = count - most
    return f" The other {left} {what} are in the table." if left > 0 else ""


def label_rows(axes: "Axes", labels: Sequence[str]) -> None:
    """Label the rows of a chart of horizontal marks, the first on top."""
    axes.set_yticks(range(len(labels)), [shorten(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def count_epochs(axes: "Axes") -> None:
    """Label an axis of epochs, which are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("epoch")
