"""`adrbench report`: read records, print tables."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from adrbench.errors import unknown_name

logger = logging.getLogger(__name__)


def report(
    results: Annotated[list[Path], typer.Argument(help="Directories of result files.")],
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, csv, json or latex.")
    ] = "terminal",
    baselines: Annotated[
        bool, typer.Option(help="Show RobustBench's and the paper's rows beside ours.")
    ] = True,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Show 95 % Wilson intervals.")
    ] = False,
) -> None:
    """Print the tables of results: robust accuracy, robust overfitting, comparisons, cost."""
    from adrbench.report import FORMATS, build_report, render
    from adrbench.results.records import Skipped, read_records

    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    skipped = Skipped()
    try:
        records = [record for directory in results for record in read_records(directory, skipped)]
    finally:
        for reason in skipped.reasons.values():
            logger.warning(f"left out: {reason}")
    built = build_report(records, baselines=baselines, intervals=intervals)
    is_terminal = form == "terminal" and sys.stdout.isatty()
    typer.echo(render(built, form, color=is_terminal), nl=False)
