"""`adrbench report`: read records, print tables."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adrbench.errors import unknown_name
from adrbench.printable import get_logger

if TYPE_CHECKING:
    from adrbench.report import Report
    from adrbench.report.figures import Chart
    from adrbench.results.records import Record

logger = get_logger(__name__)

#: Of more files that are not records, only the number is noted.
MOST_NOTED = 10
#: The format that has figures too.
PAGE = "html"


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Directories of records, or single records.", show_default="results"),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, html, csv, json or latex.")
    ] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the report to.", show_default="standard output"),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Also save the figures of the page in this directory, as SVG, PDF and PNG.",
            show_default=False,
        ),
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
            help="Only these tables: accuracy, radius, attacks, overfitting, comparison, "
            "calibration, classes, baselines, cost."
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
    intervals: Annotated[bool, typer.Option("--intervals", help="Show 95 % intervals.")] = False,
) -> None:
    """Report results as tables or as a page: accuracy, overfitting, comparisons, cost."""
    from adrbench.report import DEFAULT, FORMATS, build_report, needs_outputs, select_tables
    from adrbench.results.outputs import OutputsFinder
    from adrbench.runtime.files import check_writable

    if form not in (*FORMATS, PAGE):
        raise unknown_name("format", form, (*FORMATS, PAGE))
    if plots is not None:
        check_writable(plots)
    paths = results or [DEFAULT]
    records = _read(paths, dataset, latest=latest)
    built = build_report(
        records,
        baselines=baselines,
        intervals=intervals,
        against=against,
        outputs=OutputsFinder.search(paths) if needs_outputs(table) else None,
    )
    if against is not None and not select_tables(built, ["comparison"]).tables:
        logger.warning(
            f"no method can be compared with {against}: none was evaluated on the same images, "
            "network, epoch and training seeds, and trained with the same settings."
        )
    if table:
        built = select_tables(built, table)
        if not built.tables:
            logger.warning(f"there are no results for the {' or '.join(table)} table.")
    charts = _collect(records, built) if form == PAGE or plots is not None else ()
    _write(_render(records, built, charts, form, out), out)
    if plots is not None:
        from adrbench.report.figures import save_charts

        saved = save_charts(charts, plots)
        logger.info(f"{len(charts)} figures are in {plots}, as {len(saved)} files.")


def _collect(records: "Sequence[Record]", built: "Report") -> "Sequence[Chart]":
    """Return the figures of a report, whose modules its tables do not need."""
    from adrbench.report.figures import collect_charts

    return collect_charts(records, built)


def _read(paths: Sequence[Path], datasets: Sequence[str] | None, *, latest: bool) -> "list[Record]":
    """Return the selected records, and note the files that are not records."""
    from adrbench.report import read_results, select_datasets, select_latest
    from adrbench.results.records import Skipped

    skipped = Skipped()
    try:
        records = read_results(paths, skipped)
    finally:
        for reason in list(skipped.reasons.values())[:MOST_NOTED]:
            logger.warning(f"left out: {reason}")
        num_others = len(skipped.reasons) - MOST_NOTED
        if num_others > 0:
            logger.warning(f"left out: {num_others:,} more files that are not records.")
    if datasets:
        records = select_datasets(records, datasets)
    return select_latest(records) if latest else records


def _render(
    records: "Sequence[Record]",
    built: "Report",
    charts: "Sequence[Chart]",
    form: str,
    out: Path | None,
) -> str:
    """Return the report in a format; on a terminal in color."""
    if form == PAGE:
        from adrbench.report.page import build_page, render_page

        return render_page(build_page(records, built, charts))
    from adrbench.report import render

    is_terminal = out is None and form == "terminal" and sys.stdout.isatty()
    return render(built, form, color=is_terminal)


def _write(shown: str, out: Path | None) -> None:
    from adrbench.runtime.files import write_atomically

    if out is None:
        typer.echo(shown, nl=False)
    else:
        write_atomically(out, shown.encode("utf-8", "backslashreplace"))
