"""Results as plain tables on stdout."""

import sys

from rich.console import Console
from rich.table import Table

#: The width of a table outside a terminal, wide enough that no row is wrapped.
UNLIMITED_WIDTH = 10_000


def print_table(table: Table) -> None:
    """Print to stdout: within the width of a terminal, elsewhere each row on one line."""
    width = None if sys.stdout.isatty() else UNLIMITED_WIDTH
    Console(width=width, markup=False, emoji=False).print(table)
