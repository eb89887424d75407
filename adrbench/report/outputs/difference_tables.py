"""The tables of differences in calibration and in consistency between methods and their controls.

Which two are compared, and what else differs between them, is as in the table of differences in
robust accuracy. There are no p-values: the many measures are for exploration.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from adrbench.report import columns as c
from adrbench.report.grouping import Attack, SeedGroup, Task
from adrbench.report.outputs.seed_values import SeedValues
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.outputs.tables import compare_by_method, describe_group, identify, make_table
from adrbench.report.pairs import ONE_SEED_FOOTNOTE, Pairs, shared_split_footnotes
from adrbench.report.run_settings import Settings
from adrbench.report.tables import Cell, Column, Row, Table
from adrbench.report.validation_split import ValidationSplits

SEEDS_NOTE = "method - against [95 % interval, seeds and images both random]."
IMAGES_NOTE = "method - against [95 % interval, only images random]."
EXPLORATORY_NOTE = "Intervals are not corrected for the number of comparisons; there are no tests."
CALIBRATION_NOTES = (
    "ECE: in points; the interval extends to what remains of the bias of both.",
    "Brier: between 0 and 2; NLL: in nats.",
    "right, wrong: confidence (points) where each method itself is right, and wrong.",
)
CONSISTENCY_NOTES = (
    "KL(clean, adversarial) in nats, total variation TV in points: negative is more consistent.",
)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """The outputs of a method and of its reference, over the `seeds` that both have."""

    own: OutputStatistics
    reference: OutputStatistics
    seeds: tuple[int | None, ...]
    footnotes: tuple[str, ...]


def difference_tables(
    task: Task,
    statistics: Sequence[OutputStatistics],
    settings: Settings,
    splits: ValidationSplits,
    *,
    against: str | None = None,
) -> list[Table]:
    """Return the differences of measures between each model and its nearest control.

    With `against`, they are from this method. Only models with outputs count; there are no tables
    without any pair.
    """
    lines = _Comparisons(task, statistics, settings, splits, against).lines
    if not lines:
        return []
    calibration = [
        _make_row(line, {c.OUTPUTS.key: outputs}, take)
        for comparable in _side_by_side(lines, statistics)
        for outputs, take in (("clean", _take_clean), ("adversarial", _take_adversarial))
        for line in comparable
    ]
    consistency = [
        _make_row(line, {}, _take_both)
        for comparable in _side_by_side(lines, statistics)
        for line in comparable
    ]
    has_seeds = any(len(line.seeds) > 1 for line in lines.values())
    shared = (SEEDS_NOTE if has_seeds else IMAGES_NOTE, EXPLORATORY_NOTE)

    def make(
        name: str, columns: tuple[Column, ...], rows: Sequence[Row], notes: Iterable[str]
    ) -> Table:
        table = make_table(
            task,
            statistics,
            name=f"{name} differences",
            title=f"Differences in {name}",
            columns=columns,
            rows=rows,
            notes=(*shared, *notes),
        )
        return replace(table, unnumbered=shared_split_footnotes(rows))

    return [
        make("calibration", c.CALIBRATION_DIFFERENCES, calibration, CALIBRATION_NOTES),
        make("consistency", c.CONSISTENCY_DIFFERENCES, consistency, CONSISTENCY_NOTES),
    ]


class _Comparisons:
    """The comparison of each model that has a reference, by its statistics."""

    def __init__(
        self,
        task: Task,
        statistics: Sequence[OutputStatistics],
        settings: Settings,
        splits: ValidationSplits,
        against: str | None,
    ) -> None:
        self.groups = _restrict_groups(statistics)
        self.statistics = {(id(self.groups[one.group]), one.attack): one for one in statistics}
        self.pairs = Pairs(task, [*self.groups.values()], settings, splits, against=against)
        found = {one: self._compare(one) for one in statistics}
        self.lines = {one: line for one, line in found.items() if line is not None}

    def _compare(self, own: OutputStatistics) -> _Line | None:
        group = self.groups[own.group]
        pair = next(self.pairs.find(group, own.attack), None)
        if pair is None:
            return None
        reference = self.statistics[id(pair.reference), own.attack]
        seeds = tuple(seed for seed in own.seeds if seed in reference.seeds)
        footnotes = (
            *describe_group(own),
            *describe_group(reference),
            *pair.missing,
            *self.pairs.footnotes(pair, len(seeds), ONE_SEED_FOOTNOTE),
        )
        return _Line(
            own=own, reference=reference, seeds=seeds, footnotes=tuple(dict.fromkeys(footnotes))
        )


def _restrict_groups(statistics: Iterable[OutputStatistics]) -> dict[SeedGroup, SeedGroup]:
    """Return each group with only those of its records that have outputs."""
    kept: dict[SeedGroup, dict[Attack, OutputStatistics]] = {}
    for one in statistics:
        kept.setdefault(one.group, {})[one.attack] = one
    return {
        group: replace(
            group,
            records={
                attack: {seed: group.records[attack][seed] for seed in one.seeds}
                for attack, one in own.items()
            },
        )
        for group, own in kept.items()
    }


def _side_by_side(
    lines: Mapping[OutputStatistics, _Line], statistics: Iterable[OutputStatistics]
) -> list[list[_Line]]:
    return [
        [lines[one] for one in comparable if one in lines]
        for comparable in compare_by_method(statistics)
    ]


def _make_row(
    line: _Line,
    cells: Mapping[str, Cell],
    take: Callable[[OutputStatistics], Mapping[str, SeedValues]],
) -> Row:
    """Return the row of the differences of the measures that `take` takes."""
    own, reference = take(line.own), take(line.reference)
    return Row(
        cells={
            **identify(line.own),
            c.AGAINST.key: line.reference.group.method,
            c.SEEDS.key: len(line.seeds),
            **cells,
            **{name: values.minus(reference[name]).figure() for name, values in own.items()},
        },
        footnotes=line.footnotes,
    )


def _take_clean(one: OutputStatistics) -> Mapping[str, SeedValues]:
    return one.clean.by_seed


def _take_adversarial(one: OutputStatistics) -> Mapping[str, SeedValues]:
    return one.adversarial.by_seed


def _take_both(one: OutputStatistics) -> Mapping[str, SeedValues]:
    return one.by_seed
