"""Which attack of a suite did the work: the images that each stage fooled first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adrbench.report import columns as c
from adrbench.report.attack_labels import label_attacks
from adrbench.report.footnotes import figure_notes, group_footnotes
from adrbench.report.grouping import Attack, SeedGroup, Task, context, describe, shown_groups
from adrbench.report.statistics import accuracy
from adrbench.report.tables import Cell, Column, Row, Table
from adrbench.results.records import AttackRecord

SURVIVORS = "survivors"
ORDER_NOTE = "an image counts for the first attack that fooled it; later ones did not run on it."
#: The key of the column of a stage starts with this.
FOOLED = "fooled by "


def survivor_tables(task: Task, groups: Sequence[SeedGroup], intervals: bool) -> list[Table]:
    """Return a table for each suite of several attacks: how many images each of them fooled.

    Rows are those of the main table.
    """
    shown = shown_groups(list(groups))
    labels = label_attacks(shown).labels
    found = []
    for attack, label in labels.items():
        by_stages: dict[tuple[str, ...], list[SeedGroup]] = {}
        for group in shown:
            if attack in group.records and len(stages := _stages(group, attack)) > 1:
                by_stages.setdefault(stages, []).append(group)
        for stages, own in by_stages.items():
            rows = [_make_row(group, attack) for group in own]
            notes = (ORDER_NOTE, *figure_notes(rows, intervals))
            found.append(
                Table(
                    name=SURVIVORS,
                    title=f"Images by what fooled them first (%), {describe(task)}, {label}",
                    context=context(task, own) | {"suite": label},
                    columns=(c.ARCH, c.METHOD, c.CHECKPOINT, c.SEEDS, c.N, *_columns(stages)),
                    rows=tuple(rows),
                    notes=notes,
                    is_detail=True,
                )
            )
    return found


def _stages(group: SeedGroup, attack: Attack) -> tuple[str, ...]:
    """Return the attacks of a suite in order; none where the seeds had different ones."""
    every = {tuple(stage.name for stage in one.stages) for one in group.records[attack].values()}
    return every.pop() if len(every) == 1 else ()


def _columns(stages: Sequence[str]) -> tuple[Column, ...]:
    return (
        _column("misclassified"),
        *(replace(_column(f"{FOOLED}{one}"), label=one, suite=one) for one in stages),
        _column("robust"),
    )


def _column(key: str) -> Column:
    return Column(key=key, label=key, role="value", align="right")


def _make_row(group: SeedGroup, attack: Attack) -> Row:
    counts = _cells(group.records[attack], group.identity.n)
    return Row(
        cells=c.identity(group) | {c.CHECKPOINT.key: group.selection} | counts,
        footnotes=group_footnotes(group, (attack,)),
    )


def _cells(records: Mapping[int | None, AttackRecord], n: int) -> dict[str, Cell]:
    """Return how many of n images each stage fooled, and how many none did."""
    counts: dict[str, dict[int | None, int]] = {}
    for seed, record in records.items():
        left = record.clean_correct
        counts.setdefault("misclassified", {})[seed] = record.n - left
        for stage in record.stages:
            counts.setdefault(f"{FOOLED}{stage.name}", {})[seed] = left - stage.survivors
            left = stage.survivors
        counts.setdefault("robust", {})[seed] = record.robust_correct
    return {key: accuracy(own, n) for key, own in counts.items()}
