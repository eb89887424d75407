"""Tables as rows of HTML cells: text, a key to sort by, and a bar for an interval."""

from dataclasses import dataclass

from adrbench.report.cell_text import grid
from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.report.tables import Cell, Column, Table
from adrbench.results.baselines import Rank

#: Longer texts are wrapped.
MOST_ON_A_LINE = 40


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval and a mean, in percent of the largest value of the table."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HtmlCell:
    """One cell, which may be the header of its row; a column sorts by `order`, numbers or texts.

    The text of one that `is_long` is wrapped.
    """

    text: str
    order: str
    is_header: bool = False
    is_long: bool = False
    bar: Bar | None = None


@dataclass(frozen=True, kw_only=True)
class HtmlTable:
    """A table as the template shows it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[HtmlCell, ...], ...]
    is_ours: tuple[bool, ...]
    notes: tuple[str, ...]


def make_html_table(table: Table) -> HtmlTable:
    """Return `table` with the text of the other human-readable formats."""
    text = grid(table, intervals=False)
    shown_rows = [row for row in table.rows if row.is_shown]
    scale = _find_scale(table) if "accuracy" in table.name else 0.0
    rows = []
    for row, texts in zip(shown_rows, text.cells, strict=True):
        cells = [row.cells.get(column.key) for column in text.columns]
        rows.append(
            tuple(
                HtmlCell(
                    text=shown,
                    order=_order(cell, shown),
                    is_header=column.carries_footnotes,
                    is_long=len(shown) > MOST_ON_A_LINE,
                    bar=_bar(cell, column, scale),
                )
                for cell, shown, column in zip(cells, texts, text.columns, strict=True)
            )
        )
    return HtmlTable(
        title=text.title,
        columns=text.columns,
        rows=tuple(rows),
        is_ours=text.is_ours,
        notes=text.notes,
    )


def _order(cell: Cell, text: str) -> str:
    """Return the number of a cell, or else its text; what was not measured sorts last."""
    if cell in (None, ""):
        return ""
    if isinstance(cell, Figure | Spread):
        return repr(cell.mean)
    if isinstance(cell, PValue):
        return repr(cell.p)
    if isinstance(cell, Rank):
        return repr(cell.place)
    return repr(cell) if isinstance(cell, int | float) else text


def _bar(cell: Cell, column: Column, scale: float) -> Bar | None:
    """Return the interval of an accuracy; differences are drawn in a chart."""
    interval = _find_interval(cell, column)
    if interval is None or not scale or not isinstance(cell, Figure):
        return None
    low, high = interval
    return Bar(low=100 * low / scale, mean=100 * cell.mean / scale, high=100 * high / scale)


def _find_scale(table: Table) -> float:
    """Return the upper end of the highest interval of a table, 0 without any."""
    found = [
        interval[1]
        for row in table.rows
        for column in table.columns
        if (interval := _find_interval(row.cells.get(column.key), column))
    ]
    return max(found, default=0.0)


def _find_interval(cell: Cell, column: Column) -> tuple[float, float] | None:
    if not isinstance(cell, Figure) or cell.interval is None or column.annotation != "deviation":
        return None
    return cell.interval if 0 <= cell.interval[0] <= cell.interval[1] else None
