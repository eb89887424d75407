"""Tables on a terminal; a table that is too wide is split, and its parts repeat the keys."""

import io
import shutil

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from adrbench.report.cell_text import Grid, grid
from adrbench.report.tables import Column, Report

#: Blank columns between two cells.
GUTTER = 2


def terminal(report: Report, width: int | None = None, color: bool = False) -> str:
    """Return the tables for a terminal of `width` columns (default: the current one's, else 100).

    With `color`, titles are bold, notes dim, and our rows bold among published ones.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
    )
    for number, table in enumerate(report.tables):
        text = grid(table, report.intervals)
        if number:
            console.print()
        console.print(Text(text.title, style="bold"))
        for position, part in enumerate(_parts(text, width)):
            if position:
                console.print()
            console.print(_lay_out(text, part), soft_wrap=True)
        if text.notes:
            console.print()
        for note in text.notes:
            console.print(Text(note, style="dim"))
    return "\n".join(line.rstrip(" ") for line in stream.getvalue().split("\n"))


def _widths(text: Grid) -> list[int]:
    return [
        max(cell_len(entry) for entry in (column.label, *(row[i] for row in text.cells)))
        for i, column in enumerate(text.columns)
    ]


def _parts(text: Grid, width: int) -> list[list[int]]:
    """Return the column indices of each part of a table, split so that each part fits.

    The first has the keys, the details and the values that fit; the others repeat the keys.
    """
    widths = [GUTTER + own for own in _widths(text)]
    roles = [column.role for column in text.columns]
    keys = [i for i, role in enumerate(roles) if role == "key"]
    values = [i for i, role in enumerate(roles) if role == "value"]
    parts = [[i for i, role in enumerate(roles) if role != "value"]]
    for i in values:
        is_empty = not set(parts[-1]) & set(values)
        if not is_empty and sum(widths[j] for j in (*parts[-1], i)) > width + GUTTER:
            parts.append(keys.copy())
        parts[-1].append(i)
    return [sorted(part) for part in parts]


def _lay_out(text: Grid, part: list[int]) -> Text:
    """Return header, rule and rows of the columns in `part`.

    Rich's own tables take about 2 ms per row, too long for thousands of records.
    """
    widths = _widths(text)
    columns = [(text.columns[i], widths[i]) for i in part]
    header = [column.label for column, _ in columns]
    rule = "─" * (sum(width for _, width in columns) + GUTTER * (len(columns) - 1))
    found = Text(f"{_pad(header, columns)}\n{rule}")
    style = None if all(text.is_ours) else "bold"
    for row, is_ours in zip(text.cells, text.is_ours, strict=True):
        found.append("\n")
        found.append(_pad([row[i] for i in part], columns), style if is_ours else None)
    return found


def _pad(cells: list[str], columns: list[tuple[Column, int]]) -> str:
    padded = []
    for cell, (column, width) in zip(cells, columns, strict=True):
        blank = " " * (width - cell_len(cell))
        padded.append(blank + cell if column.align == "right" else cell + blank)
    return (" " * GUTTER).join(padded).rstrip()
