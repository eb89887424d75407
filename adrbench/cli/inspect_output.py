"""What `inspect` prints: a few sentences, and tables that fit 80 columns."""

import shutil
import sys
from pathlib import Path

import typer

from adrbench.printable import printable
from adrbench.report.inspection_tables import describe, tabulate
from adrbench.report.terminal import render_table
from adrbench.results.inspection import InspectRecord

#: The width of the tables outside a terminal.
WIDTH = 80


def print_inspection(record: InspectRecord, path: Path) -> None:
    """Print a record to stdout, for the width of a terminal or for 80 columns, and its `path`."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else WIDTH
    typer.echo("\n".join(describe(record)))
    for table in tabulate(record):
        typer.echo()
        typer.echo(render_table(table, width, color=is_terminal), nl=False)
    typer.echo(f"\nrecord: {printable(str(path))}")
