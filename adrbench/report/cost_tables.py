"""The cost of the results: seconds of training and of attacks, and on which hardware."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adrbench.report import columns as c
from adrbench.report.attack_labels import at_relative_step, label_dated, newest_date
from adrbench.report.grouping import Attack, SeedGroup, Task
from adrbench.report.runs import Runs, distinguish_runs, group_runs, name_runs
from adrbench.report.statistics import spread
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.records import AttackRecord, TrainRecord
from adrbench.runtime.arithmetic import FLOAT32

RUNS_NOTE = "seconds: wall-clock time of a run, ± over seeds."
EVALUATIONS_NOTE = (
    "seconds: wall-clock time of an evaluation, ± over methods, epochs, weights and radii."
)


def training_table(trained: Iterable[TrainRecord]) -> Table:
    """Return a row for each set of runs that differ only in the seed."""
    rows = group_runs(trained)
    footnotes = distinguish_runs(rows)
    return Table(
        name="training",
        title="Training",
        context={},
        columns=c.TRAINING,
        rows=tuple(
            Row(
                cells=_training_cells(key, rows[key]),
                footnotes=footnotes[key],
            )
            for key in rows
        ),
        notes=(RUNS_NOTE,) if any(len(own) > 1 for own in rows.values()) else (),
    )


class _Evaluations(NamedTuple):
    """The identity of the evaluations in one row of the evaluation table."""

    dataset: str
    norm: str
    arch: str
    attack: Attack
    device: str
    n: int
    processes: int


def evaluation_table(grouped: Mapping[Task, Sequence[SeedGroup]]) -> Table:
    """Return a row for all evaluations of a network by an attack, at any radius, on one device."""
    rows: dict[_Evaluations, dict[str, list[AttackRecord]]] = {}
    dates: dict[tuple[str, str], dict[Attack, str]] = {}
    for task, groups in grouped.items():
        own_dates = dates.setdefault((task.dataset, task.norm), {})
        for group in groups:
            for attack in group.attacks:
                common = at_relative_step(attack, group.eps)
                own_dates[common] = max(own_dates.get(common, ""), newest_date(group, attack))
                for record in group.records[attack].values():
                    key = _Evaluations(
                        *(task.dataset, task.norm, group.identity.arch, common),
                        *(_device(record), record.n, record.processes),
                    )
                    rows.setdefault(key, {}).setdefault(task.eps, []).append(record)
    named = {place: label_dated(own) for place, own in dates.items()}
    order = {
        (*place, attack): position
        for place, own in named.items()
        for position, attack in enumerate(own.labels)
    }
    in_order = sorted(rows, key=lambda key: (key[:3], order[key.dataset, key.norm, key.attack]))
    notes = [note for own in named.values() for note in own.notes]
    if any(sum(map(len, own.values())) > 1 for own in rows.values()):
        notes.insert(0, EVALUATIONS_NOTE)
    return Table(
        name="evaluation",
        title="Evaluation",
        context={},
        columns=c.EVALUATION,
        rows=tuple(
            _evaluation_row(key, named[key.dataset, key.norm].labels[key.attack], rows[key])
            for key in in_order
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def _device(record: AttackRecord) -> str:
    """Return the device of an evaluation, with the arithmetic of its attacks if not float32."""
    in_float32 = record.searched == FLOAT32
    return record.device if in_float32 else f"{record.device}, {record.searched}"


def _training_cells(key: Runs, records: Sequence[TrainRecord]) -> dict[str, Cell]:
    return {
        c.DATASET.key: key.dataset,
        c.ARCH.key: key.arch,
        c.METHOD.key: name_runs(key, records),
        c.PRECISION.key: key.precision,
        c.DEVICE.key: key.device,
        "runs": len(records),
        "num_train": records[0].num_train,
        "epochs": len(records[0].history),
        c.SECONDS.key: spread(record.seconds for record in records),
        "images_per_second": spread(record.images_per_second for record in records),
    }


def _evaluation_row(
    key: _Evaluations, label: str, by_eps: Mapping[str, Sequence[AttackRecord]]
) -> Row:
    radii = [*by_eps]
    where = radii[0] if len(radii) == 1 else f"{len(radii)} radii"
    records = [record for own in by_eps.values() for record in own]
    cells: dict[str, Cell] = {
        c.DATASET.key: key.dataset,
        c.ARCH.key: key.arch,
        c.SUITE.key: f"{label}, {key.norm} {where}",
        c.DEVICE.key: key.device,
        c.N.key: key.n,
        "processes": key.processes,
        "evaluations": len(records),
        c.SECONDS.key: spread(record.seconds for record in records),
    }
    return Row(cells=cells)
