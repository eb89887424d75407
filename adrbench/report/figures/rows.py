"""Names of the rows of a table where it becomes a figure."""

from collections.abc import Iterable, Sequence

from adrbench.report import columns as c
from adrbench.report.statistics import Figure
from adrbench.report.tables import Column, Row, Table

#: A figure shows at most this many rows; tables have them all.
MOST_ROWS = 40
#: The columns that name a row, in the order of its name.
_NAMES = (c.METHOD, c.AGAINST, c.ARCH, c.CHECKPOINT, c.SUITE)
_COUNTS = (c.N,)
VERSUS = "vs "


def name_rows(table: Table, rows: Sequence[Row], without: Sequence[Column] = ()) -> list[str]:
    """Return a name for each row: its method, and what else differs between the rows."""
    own = {column.key for column in table.columns}
    skipped = {column.key for column in without}
    shown = [
        column
        for column in (*_NAMES, *_COUNTS)
        if column.key in own
        and column.key not in skipped
        and (column is c.METHOD or len({row.cells.get(column.key) for row in rows}) > 1)
    ]
    return [_join(_spell(row, column) for column in shown) for row in rows]


def _join(parts: Iterable[str]) -> str:
    return ", ".join(filter(None, parts)).replace(f", {VERSUS}", f" {VERSUS}")


def _spell(row: Row, column: Column) -> str:
    cell = row.cells.get(column.key)
    if cell in (None, "", column.absent):
        return ""
    if column is c.AGAINST:
        return f"{VERSUS}{cell}"
    return f"n {cell}" if column is c.N else str(cell)


def figures_of(rows: Sequence[Row], column: Column) -> list[Figure | None]:
    """Return the figures of a column, None where it was not measured."""
    cells = [row.cells.get(column.key) for row in rows]
    return [cell if isinstance(cell, Figure) else None for cell in cells]


def describe_cut(num_rows: int) -> str:
    """Return a sentence on the rows that a figure leaves out, if it does."""
    left = num_rows - MOST_ROWS
    return f" The other {left} rows are in the table." if left > 0 else ""
