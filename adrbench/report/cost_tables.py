"""The cost of the results: seconds of training and of attacks, and on which hardware."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adrbench.config.settings import TrainConfig
from adrbench.report import columns as c
from adrbench.report.attack_labels import at_relative_step, label_dated, newest_date
from adrbench.report.grouping import Attack, SeedGroup, Task
from adrbench.report.naming import common_label, method_order, with_activation, with_label
from adrbench.report.run_settings import (
    describe_differences,
    distinguish_images,
    fingerprint,
    read_config,
)
from adrbench.report.statistics import spread
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.records import AttackRecord, TrainRecord
from adrbench.runtime.arithmetic import FLOAT32

RUNS_NOTE = "seconds: wall-clock time of a run, ± over seeds."
EVALUATIONS_NOTE = (
    "seconds: wall-clock time of an evaluation, ± over methods, epochs, weights and radii."
)


class _Runs(NamedTuple):
    """The identity of the runs in one row of the training table; `label` as in ModelIdentity."""

    dataset: str
    arch: str
    method: str
    label: str
    precision: str
    device: str
    settings: str
    training_images: str


def training_table(trained: Iterable[TrainRecord]) -> Table:
    """Return a row for each set of runs that differ only in the seed."""
    rows: dict[_Runs, list[TrainRecord]] = {}
    configs: dict[tuple[str, str, str], dict[str, TrainConfig]] = {}
    for record in trained:
        config = read_config(record)
        key = _Runs(
            dataset=record.dataset,
            arch=with_activation(record.arch, config.activation if config else "relu"),
            method=record.method,
            label="" if record.training_images_sha256 else record.label,
            precision=_arithmetic(record),
            device=record.device,
            settings=fingerprint(config, record) if config else record.run,
            training_images=record.training_images_sha256 or "",
        )
        rows.setdefault(key, []).append(record)
        if config:
            configs.setdefault(key[:3], {})[key.settings] = config
    by_settings = {kind: describe_differences(known) for kind, known in configs.items()}
    by_images = {
        kind: distinguish_images(key.training_images for key in rows if key[:3] == kind)
        for kind in {key[:3] for key in rows}
    }
    in_order = sorted(rows, key=lambda key: (*key[:2], method_order(key.method), *key[2:]))
    return Table(
        name="training",
        title="Training",
        context={},
        columns=c.TRAINING,
        rows=tuple(
            Row(
                cells=_training_cells(key, rows[key]),
                footnotes=by_settings.get(key[:3], {}).get(key.settings, ())
                + by_images[key[:3]].get(key.training_images, ()),
            )
            for key in in_order
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


def _arithmetic(record: TrainRecord) -> str:
    """Return the arithmetic of a run, and whether its steps were compiled in any session."""
    is_compiled = any(session.compiled for session in record.sessions)
    return f"{record.precision}, compiled" if is_compiled else record.precision


def _device(record: AttackRecord) -> str:
    """Return the device of an evaluation, with the arithmetic of its attacks if not float32."""
    in_float32 = record.searched == FLOAT32
    return record.device if in_float32 else f"{record.device}, {record.searched}"


def _training_cells(key: _Runs, records: Sequence[TrainRecord]) -> dict[str, Cell]:
    return {
        c.DATASET.key: key.dataset,
        c.ARCH.key: key.arch,
        c.METHOD.key: with_label(key.method, common_label(record.label for record in records)),
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
