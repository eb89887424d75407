"""The charts of a report: which figures its tables and records give."""

import re
from collections.abc import Iterable, Iterator, Sequence

from adrbench.config.method import Weights, parse_method
from adrbench.errors import AdrbenchError
from adrbench.report import columns as c
from adrbench.report.cell_text import cut
from adrbench.report.figures.accuracy import accuracy_chart, overfitting_chart, radius_chart
from adrbench.report.figures.calibration import (
    confidence_chart,
    consistency_chart,
    ece_chart,
    reliability_chart,
)
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.differences import difference_chart
from adrbench.report.figures.labels import matrix_chart, schedule_chart
from adrbench.report.figures.plane import Point, plane_chart
from adrbench.report.figures.survivors import survivors_chart
from adrbench.report.figures.training import Curves, training_chart
from adrbench.report.inspection_tables import distinct_inspections
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.places import Place, place_of, place_of_outputs
from adrbench.report.row_names import describe_epoch, name_models, name_rows
from adrbench.report.runs import distinguish_runs, group_runs, name_runs
from adrbench.report.statistics import Figure
from adrbench.report.tables import Report, Row, Table
from adrbench.results.baselines import robustbench
from adrbench.results.history import HistoryRow
from adrbench.results.inspection import InspectRecord
from adrbench.results.records import Record, TrainRecord

#: Runs whose curves are drawn; more would make a page slow to open.
MOST_CURVES = 60
#: Models of a data set and threat model whose reliability diagrams are drawn.
MOST_RELIABILITY = 12
_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


class _Names:
    """Names of charts that can be those of files, each given once."""

    def __init__(self) -> None:
        self.given: set[str] = set()

    def make(self, *parts: str) -> str:
        stem = "-".join(_UNSAFE.sub("-", part).strip("-.")[:40] for part in parts if part)
        name, number = stem, 1
        while name.lower() in self.given:
            number += 1
            name = f"{stem}-{number}"
        self.given.add(name.lower())
        return name


def collect_charts(records: Sequence[Record], report: Report) -> tuple[Chart, ...]:
    """Return the charts of the tables of `report`, and of the training runs among `records`.

    Training curves belong to the tables of overfitting: where some tables are selected, they are
    drawn if these are.
    """
    names = _Names()
    charts = [chart for table in report.tables for chart in _chart_table(table, names)]
    if any(table.name == "calibration" for table in report.tables):
        charts += _chart_outputs(report.outputs, names)
    if not report.is_selection or any(one.name == "robust overfitting" for one in report.tables):
        trained = [record for record in records if isinstance(record, TrainRecord)]
        charts += _chart_training(trained, names)
    if not report.is_selection:
        for inspected in distinct_inspections(records):
            charts += _chart_inspection(inspected, names)
    return tuple(charts)


def _chart_inspection(record: InspectRecord, names: _Names) -> Iterator[Chart]:
    """Yield the charts of what ADR does to the labels of a run."""
    parts = (record.dataset, record.arch, record.method, f"seed{record.seed}", record.selection)
    if chart := matrix_chart(record, names.make("labels", *parts)):
        yield chart
    yield schedule_chart(record, names.make("annealing", *parts))


def _chart_outputs(outputs: Iterable[OutputStatistics], names: _Names) -> Iterator[Chart]:
    """Yield the charts of outputs: all models of a place together, then each on its own."""
    by_place: dict[Place, list[OutputStatistics]] = {}
    for one in outputs:
        by_place.setdefault(place_of_outputs(one), []).append(one)
    for place, models in by_place.items():
        yield ece_chart(models, names.make("calibration", *place), place)
        yield confidence_chart(models, names.make("confidence", *place), place)
        yield consistency_chart(models, names.make("consistency", *place), place)
        for model, title in list(zip(models, name_models(models), strict=True))[:MOST_RELIABILITY]:
            name = names.make("reliability", *place, title)
            yield reliability_chart(model, name, place, title)


def _chart_table(table: Table, names: _Names) -> Iterator[Chart]:
    place = place_of(table)
    if place is None:
        return
    if table.name == "robust accuracy":
        if not table.is_repeated and (
            chart := accuracy_chart(table, names.make("accuracy", *place), place)
        ):
            yield chart
        yield from _chart_plane(table, names.make("robustbench", *place), place)
    elif table.name == "robust accuracy by radius":
        yield radius_chart(table, names.make("radius", *place), place)
    elif table.name == "survivors":
        suite = str(table.context["suite"])
        yield survivors_chart(table, names.make("attacks", *place, suite), place)
    elif table.name == "robust overfitting":
        yield overfitting_chart(table, names.make("overfitting", *place), place)
    elif table.name == "paired":
        for (epoch, suite), rows in _families(table).items():
            yield difference_chart(
                rows,
                names.make("differences", *place, epoch, suite),
                place,
                f"Differences under {cut(suite)}{describe_epoch(epoch)}",
            )


def _families(table: Table) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of a table of comparisons by epoch and suite, in its order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in table.rows:
        key = (str(row.cells[c.CHECKPOINT.key]), str(row.cells[c.SUITE.key]))
        found.setdefault(key, []).append(row)
    return found


def _chart_plane(table: Table, name: str, place: Place) -> Iterator[Chart]:
    """Yield our ranked rows beside RobustBench's entries, if there are any."""
    robust = [column for column in table.columns if column.suite == "autoattack"]
    points: list[Point] = []
    for row, method in zip(table.rows, name_rows(table.rows), strict=True):
        clean = row.cells.get(c.CLEAN.key)
        figures = [row.cells.get(column.key) for column in robust]
        if row.cells.get(c.RANK.key) and isinstance(clean, Figure):
            points += [(method, clean, figure) for figure in figures if isinstance(figure, Figure)]
    if points:
        eps = table.context["eps"]
        assert isinstance(eps, float)
        yield plane_chart(robustbench(place.dataset, place.norm, eps), points, name, place)


def _chart_training(trained: Iterable[TrainRecord], names: _Names) -> Iterator[Chart]:
    """Yield the curves of the runs that have a readable history."""
    grouped = group_runs(trained)
    footnotes = distinguish_runs(grouped)
    for key in list(grouped)[:MOST_CURVES]:
        histories = [rows for record in grouped[key] if (rows := _read_history(record))]
        if not histories:
            continue
        method = name_runs(key, grouped[key])
        settings = "".join(f" {text[0].upper()}{cut(text[1:])}." for text in footnotes[key])
        yield training_chart(
            Curves(histories=histories, selected=_deployed(key.method)),
            names.make("training", key.dataset, key.arch, method),
            Place(key.dataset),
            cut(f"{method}, {key.arch}"),
            settings,
        )


def _read_history(record: TrainRecord) -> list[HistoryRow]:
    try:
        rows = record.rows()
    except ValueError:
        return []
    return rows


def _deployed(method: str) -> Weights:
    try:
        return parse_method(method).deployed
    except AdrbenchError:
        return "student"
