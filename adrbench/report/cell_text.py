"""Cells as text for the human-readable formats, which share one grid of strings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.report.tables import MOST_CHARACTERS, Cell, Column, Row, Table
from adrbench.results.baselines import Rank

MISSING = "-"
#: Longer notes are cut too.
MOST_IN_NOTE = 2_000
#: A smaller probability is shown as less than this.
SMALLEST_P = 0.001


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as plain text: `cells[row][column]`, and the notes, footnotes first."""

    title: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    is_ours: tuple[bool, ...]
    notes: tuple[str, ...]


def grid(table: Table, intervals: bool) -> Grid:
    """Return the text of `table`; footnotes of some rows are numbered, those of all are not."""
    rows = [row for row in table.rows if row.is_shown]
    shared = _shared_footnotes(rows)
    apart = {*shared, *table.unnumbered}
    numbered = dict.fromkeys(text for row in rows for text in row.footnotes if text not in apart)
    numbers = {text: number for number, text in enumerate(numbered, start=1)}
    footnotes = [f"[{number}] {text}" for text, number in numbers.items()]
    on_all_rows = [f"all rows: {text}" for text in shared if text not in table.unnumbered]
    columns = [column for column in table.columns if not _is_absent(column, rows)]
    return Grid(
        title=cut(table.title),
        columns=tuple(replace(column, label=cut(column.label)) for column in columns),
        cells=tuple(
            tuple(_cell(row, column, intervals, numbers) for column in columns) for row in rows
        ),
        is_ours=tuple(row.is_ours for row in rows),
        notes=tuple(
            cut(note, MOST_IN_NOTE)
            for note in (*footnotes, *on_all_rows, *table.unnumbered, *table.notes)
        ),
    )


def _is_absent(column: Column, rows: Sequence[Row]) -> bool:
    """Return whether no row says anything in a column that may be left out."""
    return bool(column.absent) and all(row.cells.get(column.key) == column.absent for row in rows)


def _shared_footnotes(rows: Sequence[Row]) -> list[str]:
    """Return the footnotes that all of several rows have, whose numbers would be redundant."""
    if len(rows) < 2:
        return []
    first, *others = rows
    return [text for text in first.footnotes if all(text in row.footnotes for row in others)]


def format_cell(cell: Cell, column: Column, intervals: bool) -> str:
    """Return one cell of `column` as text; a dash if it was not measured."""
    if cell in (None, "", column.absent):
        return MISSING
    if isinstance(cell, Figure | Spread):
        return _figure(cell, column, intervals)
    if isinstance(cell, PValue):
        shown = f"{cell.p:.3f}" if cell.p >= SMALLEST_P else f"<{SMALLEST_P:g}"
        return f"{shown} ({cell.comparisons})"
    if isinstance(cell, Rank):
        return f"{cell.place} of {cell.of}"
    if isinstance(cell, float):
        return f"{cell:.{column.decimals}f}"
    return str(cell)


def _figure(figure: Figure | Spread, column: Column, intervals: bool) -> str:
    if isinstance(figure, Figure) and column.annotation == "interval":
        return _difference(figure, column.decimals)
    text = f"{figure.mean:,.{column.decimals}f}"
    if figure.std is not None and column.annotation == "deviation":
        text += f" ± {figure.std:,.{column.decimals}f}"
    if intervals and isinstance(figure, Figure) and figure.interval:
        low, high = figure.interval
        text += f" [{low:.{column.interval_decimals}f}, {high:.{column.interval_decimals}f}]"
    return text


def _difference(figure: Figure, decimals: int) -> str:
    """Return a difference with its sign and, where it has one, its interval."""
    text = f"{figure.mean:+.{decimals}f}"
    if figure.interval is None:
        return text
    low, high = figure.interval
    return f"{text} [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def _cell(row: Row, column: Column, intervals: bool, numbers: dict[str, int]) -> str:
    shown = format_cell(row.cells.get(column.key), column, intervals)
    text = cut(shown, column.most_characters)
    own = sorted(numbers[note] for note in row.footnotes if note in numbers)
    if column.carries_footnotes and own:
        text += f" [{','.join(map(str, own))}]"
    return text


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return `text`, or its beginning if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
