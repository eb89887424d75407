"""Records in, tables out: accuracy, overfitting, pairs, published baselines, and what it took.

`build_report` decides what stands in the tables, `render` how they look. Nothing here runs a
model or imports torch.
"""

from collections.abc import Sequence

from adrbench.errors import unknown_name
from adrbench.report.accuracy import accuracy_table, overfitting_table
from adrbench.report.baseline_tables import paper_tables, robustbench_tables
from adrbench.report.comparison import paired_table
from adrbench.report.cost import evaluation_table, training_table
from adrbench.report.dataframe import load_results, results_frame
from adrbench.report.grouping import group
from adrbench.report.run_settings import read_settings
from adrbench.report.tables import Report, Table
from adrbench.results.baselines import Leaderboard, paper, robustbench
from adrbench.results.records import AttackRecord, Record, TrainRecord

__all__ = ["FORMATS", "Report", "Table", "build_report", "load_results", "render", "results_frame"]

FORMATS = ("terminal", "markdown", "csv", "json", "latex")


def build_report(
    records: Sequence[Record], *, baselines: bool = True, intervals: bool = False
) -> Report:
    """Return the tables of `records`, a set for each data set and threat model.

    `baselines` adds RobustBench's and the paper's rows where they apply, and our ranks;
    `intervals` asks for 95 % Wilson intervals in the formats for people (JSON and CSV always
    have them).
    """
    attacked = [record for record in records if isinstance(record, AttackRecord)]
    trained = [record for record in records if isinstance(record, TrainRecord)]
    settings = read_settings(trained)
    tables: list[Table] = []
    grouped = group(attacked)
    for setting, lines in grouped.items():
        eps = lines[0].eps
        entries = robustbench(setting.dataset, setting.norm, eps) if baselines else []
        leaderboard = Leaderboard(tuple(entries))
        tables.append(accuracy_table(setting, lines, leaderboard, intervals, settings))
        further = (
            overfitting_table(setting, lines, intervals, settings),
            paired_table(setting, lines, intervals, settings),
        )
        tables += [table for table in further if table is not None]
        if baselines:
            published = paper(setting.dataset, setting.norm, eps)
            tables += robustbench_tables(setting, lines, leaderboard, intervals)
            tables += paper_tables(setting, lines, published, intervals)
    if trained:
        tables.append(training_table(trained))
    if attacked:
        tables.append(evaluation_table(grouped))
    return Report(tables=tuple(tables), intervals=intervals)


def render(report: Report, format: str, *, width: int | None = None, color: bool = False) -> str:  # noqa: A002
    """Return `report` as text in one of FORMATS; `width` and `color` are for the terminal.

    Raises:
        UsageError: for an unknown format.

    """
    if format == "terminal":
        from adrbench.report.terminal import terminal

        return terminal(report, width, color)
    if format in ("markdown", "latex"):
        from adrbench.report import markup

        return markup.markdown(report) if format == "markdown" else markup.latex(report)
    if format in ("csv", "json"):
        from adrbench.report import export as interchange

        return interchange.as_csv(report) if format == "csv" else interchange.as_json(report)
    raise unknown_name("format", format, FORMATS)
