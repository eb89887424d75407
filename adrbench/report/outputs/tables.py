"""The tables of calibration and of consistency, and what they share with those of classes."""

from collections.abc import Iterable, Sequence

from adrbench.report import columns as c
from adrbench.report.attack_labels import label_attacks
from adrbench.report.distinctions import Distinctions
from adrbench.report.footnotes import SEEDS_NOTE, group_footnotes
from adrbench.report.grouping import SELECTIONS, Task, context, describe
from adrbench.report.outputs.measures import CALIBRATION
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.run_settings import Settings
from adrbench.report.statistics import Figure
from adrbench.report.tables import Cell, Column, Row, Table

INTERVALS_NOTE = "[low, high]: 95 % interval, seeds and images both random."
MIXED_NOTE = "[low, high]: 95 % interval, seeds and images both random; of one seed, only images."
IMAGES_NOTE = "[low, high]: 95 % interval, only images random."
BIAS_NOTE = "ECE is biased upwards on few images; its interval extends to less bias."
CALIBRATION_NOTES = (
    "ECE: expected calibration error (%, 15 bins); Brier: from 0 to 2; NLL: in nats; all: lower "
    "is better.",
    "right, wrong: mean confidence (%) of right and of wrong predictions.",
    "adversarial: on the images with which the attack ended, also in its accuracy.",
)
CONSISTENCY_NOTES = (
    "KL(clean, adversarial) in nats and total variation TV (%) of the outputs; 0: unchanged.",
    "Linf, L2: mean size of the perturbations.",
)

#: The statistics of models that differ in nothing but method, data and training.
Comparable = list[OutputStatistics]


def calibration_table(
    task: Task, statistics: Sequence[OutputStatistics], intervals: bool, settings: Settings
) -> Table:
    """Return the calibration of each model on clean and on adversarial images."""
    rows = RowMaker(statistics, settings)
    made = [
        rows.make(
            one,
            outputs=outputs,
            **{name: getattr(side, name) for name in CALIBRATION},
        )
        for comparable in compare_by_method(statistics)
        for outputs in ("clean", "adversarial")
        for one in comparable
        for side in (one.clean if outputs == "clean" else one.adversarial,)
    ]
    return make_table(
        task,
        statistics,
        name="calibration",
        title="Calibration",
        columns=c.CALIBRATION,
        rows=made,
        notes=(*CALIBRATION_NOTES, *_figure_notes(made, intervals)),
    )


def consistency_table(
    task: Task, statistics: Sequence[OutputStatistics], intervals: bool, settings: Settings
) -> Table:
    """Return how far the adversarial outputs of each model are from its clean ones."""
    rows = RowMaker(statistics, settings)
    made = [
        rows.make(one, kl=one.kl, total_variation=one.total_variation, linf=one.linf, l2=one.l2)
        for comparable in compare_by_method(statistics)
        for one in comparable
    ]
    return make_table(
        task,
        statistics,
        name="consistency",
        title="Consistency of clean and adversarial outputs",
        columns=c.CONSISTENCY,
        rows=made,
        notes=(*CONSISTENCY_NOTES, *_figure_notes(made, intervals)),
    )


def compare_by_method(statistics: Iterable[OutputStatistics]) -> list[Comparable]:
    """Return the statistics by network, epoch and attack, so that methods stand side by side."""
    every = list(statistics)
    attacks = list(label_attacks(one.group for one in every).labels)
    found: dict[tuple[object, ...], Comparable] = {}
    for one in every:
        group = one.group
        key = (
            group.selection == "file",
            group.identity.arch,
            SELECTIONS.index(group.selection),
            group.selected_on != "val",
            attacks.index(one.attack),
            len(one.class_sizes),
        )
        found.setdefault(key, []).append(one)
    return [found[key] for key in sorted(found)]


class RowMaker:
    """Makes the rows of a table of outputs, with the footnotes by which they differ."""

    def __init__(self, statistics: Iterable[OutputStatistics], settings: Settings) -> None:
        every = list(statistics)
        distinctions = Distinctions(list(dict.fromkeys(one.group for one in every)), settings)
        self.shared = {one: identify(one) for one in every}
        self.footnotes = {one: (*describe_group(one), *distinctions.of(one.group)) for one in every}

    def make(self, one: OutputStatistics, *, is_shown: bool = True, **cells: Cell) -> Row:
        """Return a row of a model with further `cells`, which may replace those of all rows."""
        return Row(
            cells={**self.shared[one], **cells}, footnotes=self.footnotes[one], is_shown=is_shown
        )


def identify(one: OutputStatistics) -> dict[str, Cell]:
    """Return the cells that all rows of a model share."""
    return c.identity(one.group) | {
        c.CHECKPOINT.key: one.group.selection,
        c.CHOSEN_ON.key: one.group.selected_on if one.group.selection == "best" else None,
        c.SUITE.key: one.suite,
        c.SEEDS.key: len(one.seeds),
    }


def describe_group(one: OutputStatistics) -> tuple[str, ...]:
    """Return the footnotes on the records of a model, and one if some seeds have no outputs."""
    found = group_footnotes(one.group, (one.attack,))
    num_seeds = len(one.group.records[one.attack])
    if len(one.seeds) < num_seeds:
        found += (f"outputs of {len(one.seeds)} of {num_seeds} seeds",)
    return found


def make_table(
    task: Task,
    statistics: Sequence[OutputStatistics],
    *,
    name: str,
    title: str,
    columns: tuple[Column, ...],
    rows: Iterable[Row],
    notes: Iterable[str],
) -> Table:
    """Return a table of outputs, whose title names the task."""
    return Table(
        name=name,
        title=f"{title}, {describe(task)}",
        context=context(task, [one.group for one in statistics]),
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _figure_notes(rows: Sequence[Row], intervals: bool) -> list[str]:
    """Return the notes on the kinds of figures that occur in `rows`."""
    figures = [cell for row in rows for cell in row.cells.values() if isinstance(cell, Figure)]
    have_seeds = {figure.std is not None for figure in figures}
    notes = [SEEDS_NOTE] if True in have_seeds else []
    if intervals:
        alike = INTERVALS_NOTE if True in have_seeds else IMAGES_NOTE
        notes.append(MIXED_NOTE if len(have_seeds) > 1 else alike)
        notes += [BIAS_NOTE] if any("ece" in row.cells for row in rows) else []
    return notes
