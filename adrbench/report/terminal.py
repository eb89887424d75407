"""Tables on a terminal, within its width."""

import io
import shutil
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from adrbench.report.cell_text import Grid, grid
from adrbench.report.fitting import GUTTER, describe_constant, fit, wrap
from adrbench.report.tables import Column, Report, Table


def terminal(report: Report, width: int | None = None, color: bool = False) -> str:
    """Return the tables for a terminal of `width` columns (default: the current one's, else 100).

    With `color`, titles are bold, notes dim, and our rows bold among published ones.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    console = _make_console(width, color)
    for number, table in enumerate(report.shown_tables):
        if number:
            console.print()
        _print_table(console, grid(table, report.intervals), width)
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Text(note, style="dim"))
    return _read_console(console)


def render_table(table: Table, width: int, color: bool = False) -> str:
    """Return one table for a terminal of `width` columns."""
    console = _make_console(width, color)
    _print_table(console, grid(table, intervals=False), width)
    return _read_console(console)


def _make_console(width: int, color: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
    )


def _read_console(console: Console) -> str:
    """Return what was printed, without blanks at the ends of lines."""
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip(" ") for line in console.file.getvalue().split("\n"))


def _print_table(console: Console, text: Grid, width: int) -> None:
    console.print(Text(text.title, style="bold"))
    fitted = fit(text, width)
    constant = describe_constant(text, fitted.constant)
    if constant:
        console.print(Text(f"all rows: {constant}", style="dim"))
    for position, part in enumerate(fitted.parts):
        if position:
            console.print()
        console.print(_lay_out(text, part), soft_wrap=True)
    if text.notes:
        console.print()
    for note in text.notes:
        console.print(Text(note, style="dim"))


def _lay_out(text: Grid, part: Mapping[int, int]) -> Text:
    """Return header, rule and rows of the columns in `part`, which holds their widths.

    Rich's own tables take about 2 ms per row, too long for thousands of records.
    """
    columns = [(text.columns[i], width) for i, width in part.items()]
    header = _pad([column.label for column, _ in columns], columns, is_header=True)
    rule = "─" * (sum(part.values()) + GUTTER * (len(columns) - 1))
    found = Text(f"{header}\n{rule}")
    style = None if all(text.is_ours) else "bold"
    for row, is_ours in zip(text.cells, text.is_ours, strict=True):
        found.append("\n")
        found.append(_pad([row[i] for i in part], columns), style if is_ours else None)
    return found


def _pad(
    cells: Sequence[str], columns: Sequence[tuple[Column, int]], is_header: bool = False
) -> str:
    """Return one row, of as many lines as its longest cell takes; a header ends on the last."""
    wrapped = [wrap(cell, width) for cell, (_, width) in zip(cells, columns, strict=True)]
    height = max(map(len, wrapped))
    blanks = [[""] * (height - len(lines)) for lines in wrapped]
    filled = [
        above + lines if is_header else lines + above
        for lines, above in zip(wrapped, blanks, strict=True)
    ]
    return "\n".join(_pad_line(line, columns) for line in zip(*filled, strict=True))


def _pad_line(cells: Sequence[str], columns: Sequence[tuple[Column, int]]) -> str:
    padded = []
    for cell, (column, width) in zip(cells, columns, strict=True):
        blank = " " * (width - cell_len(cell))
        padded.append(blank + cell if column.align == "right" else cell + blank)
    return (" " * GUTTER).join(padded).rstrip()
