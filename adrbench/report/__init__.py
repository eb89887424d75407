"""Records in, tables out: accuracy, overfitting, comparisons, published baselines, and cost.

`build_report` decides the content of the tables, `render` their layout. Nothing here runs a model
or imports torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adrbench.errors import unknown_name
from adrbench.report.accuracy_tables import accuracy_table, overfitting_table
from adrbench.report.baseline_tables import paper_tables, robustbench_tables
from adrbench.report.comparison_table import paired_table
from adrbench.report.cost_tables import evaluation_table, training_table
from adrbench.report.dataframe import load_results, results_frame
from adrbench.report.grouping import SeedGroup, Task, group_records
from adrbench.report.naming import canonical_name
from adrbench.report.radius_table import RADIUS, RadiusTables
from adrbench.report.reading import DEFAULT, read_results, select_datasets, select_latest
from adrbench.report.run_settings import Settings, read_runs
from adrbench.report.survivor_table import SURVIVORS, survivor_tables
from adrbench.report.tables import Report, Table
from adrbench.report.validation_split import ValidationSplits
from adrbench.results.baselines import Leaderboard, paper, robustbench
from adrbench.results.outputs import OutputsFinder
from adrbench.results.records import AttackRecord, Record, TrainRecord

if TYPE_CHECKING:
    from adrbench.report.outputs.statistics import OutputStatistics

__all__ = [
    "DEFAULT",
    "FORMATS",
    "TABLES",
    "Report",
    "Table",
    "build_report",
    "load_results",
    "needs_outputs",
    "read_results",
    "render",
    "results_frame",
    "select_datasets",
    "select_latest",
    "select_tables",
]

PAGE_NOTE = "Notes and footnotes are explained in docs/statistics.md."
#: The formats of tables alone; `adrbench.report.page` makes a page of tables and figures.
FORMATS = ("terminal", "markdown", "csv", "json", "latex")
#: The names by which a user selects tables, and the tables of each.
TABLES = {
    "accuracy": ("robust accuracy",),
    "radius": (RADIUS,),
    "attacks": (SURVIVORS,),
    "overfitting": ("robust overfitting",),
    "comparison": ("paired",),
    "calibration": (
        *("calibration", "consistency"),
        *("calibration differences", "consistency differences"),
    ),
    "classes": ("per-class robust accuracy", "confusion"),
    "baselines": ("robustbench", "paper"),
    "cost": ("training", "evaluation"),
}
#: Those that are computed from the files of outputs.
OF_OUTPUTS = frozenset(("calibration", "classes"))


def build_report(
    records: Sequence[Record],
    *,
    baselines: bool = True,
    intervals: bool = False,
    against: str | None = None,
    outputs: OutputsFinder | None = None,
) -> Report:
    """Return the tables of `records`, one set for each data set and threat model.

    `baselines` adds the rows of RobustBench and the paper where they apply, and our ranks;
    `intervals` adds 95 % Wilson intervals to the human-readable formats (JSON and CSV always have
    them). `against` is the method that all others are compared with, instead of their controls.
    `outputs` finds the files from which calibration, consistency and classes are computed; a file
    that is not usable is left out with a warning.

    Raises:
        UsageError: when there is no evaluation of `against`.

    """
    attacked = [record for record in records if isinstance(record, AttackRecord)]
    trained = [record for record in records if isinstance(record, TrainRecord)]
    settings, splits = read_runs(trained)
    tables: list[Table] = []
    grouped = group_records(attacked)
    against = None if against is None else _find_method(against, grouped.values())
    by_radius = RadiusTables(grouped, intervals, settings)
    statistics = _read_outputs(grouped, outputs)
    for task, groups in grouped.items():
        tables += by_radius.take(task)
        eps = groups[0].eps
        entries = robustbench(task.dataset, task.norm, eps) if baselines else []
        leaderboard = Leaderboard(tuple(entries))
        accuracies = accuracy_table(task, groups, leaderboard, intervals, settings)
        tables.append(replace(accuracies, is_repeated=by_radius.repeats(accuracies, groups)))
        tables += survivor_tables(task, groups, intervals)
        further = (
            overfitting_table(task, groups, intervals, settings),
            paired_table(task, groups, intervals, settings, splits, against=against),
        )
        tables += [table for table in further if table is not None]
        if task in statistics:
            tables += _output_tables(task, statistics[task], intervals, settings)
            tables += _difference_tables(task, statistics[task], settings, splits, against)
        if baselines and any(group.attacks for group in groups):
            published = paper(task.dataset, task.norm, eps)
            tables += robustbench_tables(task, groups, leaderboard, intervals)
            tables += paper_tables(task, groups, published, intervals)
    if trained:
        tables.append(training_table(trained))
    if attacked:
        evaluations = evaluation_table(grouped)
        tables += [evaluations] if evaluations.rows else []
    return Report(
        tables=tuple(tables),
        intervals=intervals,
        notes=_refer_to_page(tables),
        outputs=tuple(one for own in statistics.values() for one in own),
    )


def select_tables(report: Report, names: Sequence[str]) -> Report:
    """Return `report` with the tables that `names`, keys of TABLES or several by commas, select.

    Raises:
        UsageError: for an unknown name.

    """
    selected = {one for name in _split(names) for one in TABLES[name]}
    tables = tuple(
        replace(one, is_repeated=one.is_repeated and RADIUS in selected, is_detail=False)
        for one in report.tables
        if one.name in selected
    )
    notes = _refer_to_page(tables)
    return replace(report, tables=tables, notes=notes, is_selection=True)


def needs_outputs(names: Sequence[str] | None) -> bool:
    """Return whether `names`, as of `select_tables`, include tables of outputs; None means all.

    Raises:
        UsageError: for an unknown name.

    """
    return not names or not OF_OUTPUTS.isdisjoint(_split(names))


def _split(names: Sequence[str]) -> list[str]:
    """Return the keys of TABLES in `names`, each of which may list several by commas."""
    found = [part.strip() for given in names for part in given.split(",")]
    for name in found:
        if name not in TABLES:
            raise unknown_name("table", name, TABLES)
    return found


def _read_outputs(
    grouped: Mapping[Task, Sequence[SeedGroup]], finder: OutputsFinder | None
) -> dict[Task, tuple["OutputStatistics", ...]]:
    """Return the statistics of the outputs of each task that has any."""
    attacked = (
        record.outputs
        for groups in grouped.values()
        for group in groups
        for by_seed in group.records.values()
        for record in by_seed.values()
    )
    if finder is None or not any(attacked):
        return {}
    from adrbench.report.outputs.reading import read_statistics  # numpy only where it is needed

    found = {task: read_statistics(groups, finder) for task, groups in grouped.items()}
    return {task: statistics for task, statistics in found.items() if statistics}


def _output_tables(
    task: Task,
    statistics: Sequence["OutputStatistics"],
    intervals: bool,
    settings: Settings,
) -> list[Table]:
    """Return the tables of the outputs of one task."""
    from adrbench.report.outputs.class_tables import class_table, confusion_table
    from adrbench.report.outputs.tables import calibration_table, consistency_table

    makers = (calibration_table, consistency_table, class_table, confusion_table)
    return [make(task, statistics, intervals, settings) for make in makers]


def _difference_tables(
    task: Task,
    statistics: Sequence["OutputStatistics"],
    settings: Settings,
    splits: ValidationSplits,
    against: str | None,
) -> list[Table]:
    from adrbench.report.outputs.difference_tables import difference_tables

    return difference_tables(task, statistics, settings, splits, against=against)


def _find_method(given: str, tasks: Iterable[Iterable[SeedGroup]]) -> str:
    """Return the spelling of a method in rows, or the name of third-party weights."""
    present = dict.fromkeys(group.identity.method for groups in tasks for group in groups)
    for spelling in (given, canonical_name(given)):
        if spelling in present:
            return spelling
    raise unknown_name("method", given, present)


def _refer_to_page(tables: Iterable[Table]) -> tuple[str, ...]:
    """Return a reference to the page that explains the notes of `tables`, if there are any."""
    has_notes = any(table.notes or any(row.footnotes for row in table.rows) for table in tables)
    return (PAGE_NOTE,) if has_notes else ()


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
        from adrbench.report import export

        return export.as_csv(report) if format == "csv" else export.as_json(report)
    raise unknown_name("format", format, FORMATS)
