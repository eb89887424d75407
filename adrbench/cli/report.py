"""`adrbench report`: read records, print tables."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from adrbench.errors import unknown_name

logger = logging.getLogger(__name__)

#: Of more files that are not records, only the number is noted.
MOST_NOTED = 10


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Directories of records, or single records.", show_default="results"),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, csv, json or latex.")
    ] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the report to.", show_default="standard output"),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Only results on this data set; repeat the flag or separate several by commas."
        ),
    ] = None,
    latest: Annotated[
        bool,
        typer.Option(
            "--latest",
            help="Only the newest evaluation of each model name by each suite at each radius.",
        ),
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these tables: accuracy, radius, overfitting, comparison, baselines, cost."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare every method with this one, or with the weights of this name.",
            show_default="each with its control",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also show the results of RobustBench and of the ADR paper.")
    ] = True,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Show 95 % Wilson intervals of accuracies.")
    ] = False,
) -> None:
    """Print tables of results: robust accuracy, robust overfitting, comparisons, cost."""
    from adrbench.report import (
        DEFAULT,
        FORMATS,
        build_report,
        read_results,
        render,
        select_datasets,
        select_latest,
        select_tables,
    )
    from adrbench.results.records import Skipped
    from adrbench.runtime.files import write_atomically

    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    skipped = Skipped()
    try:
        records = read_results(results or [DEFAULT], skipped)
    finally:
        for reason in list(skipped.reasons.values())[:MOST_NOTED]:
            logger.warning(f"left out: {reason}")
        num_others = len(skipped.reasons) - MOST_NOTED
        if num_others > 0:
            logger.warning(f"left out: {num_others:,} more files that are not records.")
    if dataset:
        records = select_datasets(records, dataset)
    if latest:
        records = select_latest(records)
    built = build_report(records, baselines=baselines, intervals=intervals, against=against)
    if against is not None and not select_tables(built, ["comparison"]).tables:
        logger.warning(
            f"no method can be compared with {against}: none was evaluated on the same images, "
            "network, epoch and training seeds, and trained with the same settings."
        )
    if table:
        built = select_tables(built, table)
        if not built.tables:
            logger.warning(f"there are no results for the {' or '.join(table)} table.")
    is_terminal = out is None and form == "terminal" and sys.stdout.isatty()
    shown = render(built, form, color=is_terminal)
    if out is None:
        typer.echo(shown, nl=False)
    else:
        write_atomically(out, shown.encode("utf-8", "backslashreplace"))
