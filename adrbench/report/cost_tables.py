"""The cost of the results: seconds of training and of attacks, and on which hardware."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adrbench.config.settings import TrainConfig
from adrbench.report import columns as c
from adrbench.report.grouping import SeedGroup, Task
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

RUNS_NOTE = "seconds: wall-clock time of a run, ± over seeds."
EVALUATIONS_NOTE = "seconds: wall-clock time of an evaluation, ± over methods, epochs and weights."


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
            precision=record.precision,
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


def evaluation_table(grouped: Mapping[Task, Sequence[SeedGroup]]) -> Table:
    """Return a row for all evaluations of a network by an attack, on one device."""
    rows: dict[tuple[str, str, str, str, int, int], list[AttackRecord]] = {}
    for task, groups in grouped.items():
        columns = c.attack_columns(groups)
        for group in groups:
            for attack, column in columns.items():
                for record in group.records.get(attack, {}).values():
                    suite = f"{column.label}, {task.norm} {task.eps}"
                    where = (record.device, record.n, record.processes)
                    key = (task.dataset, group.identity.arch, suite, *where)
                    rows.setdefault(key, []).append(record)
    return Table(
        name="evaluation",
        title="Evaluation",
        context={},
        columns=c.EVALUATION,
        rows=tuple(_evaluation_row(key, own) for key, own in rows.items()),
        notes=(EVALUATIONS_NOTE,) if any(len(own) > 1 for own in rows.values()) else (),
    )


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
    key: tuple[str, str, str, str, int, int], records: Sequence[AttackRecord]
) -> Row:
    dataset, arch, suite, device, n, processes = key
    cells: dict[str, Cell] = {
        c.DATASET.key: dataset,
        c.ARCH.key: arch,
        c.SUITE.key: suite,
        c.DEVICE.key: device,
        c.N.key: n,
        "processes": processes,
        "evaluations": len(records),
        c.SECONDS.key: spread(record.seconds for record in records),
    }
    return Row(cells=cells)
