"""Results as plain tables on stdout."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

#: The width of a table outside a terminal, wide enough that no row is wrapped.
UNLIMITED_WIDTH = 10_000


def plain_table(*texts: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of text and, after them, of numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in texts:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print to stdout: within the width of a terminal, elsewhere each row on one line."""
    width = None if sys.stdout.isatty() else UNLIMITED_WIDTH
    Console(width=width, markup=False, emoji=False).print(table)
