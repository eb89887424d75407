"""What the figures took: seconds of training and of attacks, and on which hardware."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from adrbench.config.settings import TrainConfig
from adrbench.report import columns as c
from adrbench.report.grouping import Line, Setting, arch_label, label, method_order, variant
from adrbench.report.run_settings import describe_differences, fingerprint, read_config
from adrbench.report.statistics import spread
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.records import AttackRecord, TrainRecord

RUNS_NOTE = (
    "seconds: of a whole run, by the clock, whatever else its machine did; ± is the sample "
    "standard deviation over runs that differ in nothing but the seed."
)
EVALUATIONS_NOTE = (
    "seconds: of an evaluation; ± is the sample standard deviation over evaluations of all "
    "methods, epochs and weights, and the more images stand, the longer one takes."
)


class _Runs(NamedTuple):
    """What the runs of one row of the training table share; the first three say of what kind."""

    dataset: str
    arch: str
    method: str
    variant: str
    precision: str
    device: str
    settings: str


def training_table(trained: Iterable[TrainRecord]) -> Table:
    """Return a row for the runs that differ in nothing but the seed."""
    rows: dict[_Runs, list[TrainRecord]] = {}
    configs: dict[tuple[str, str, str], dict[str, TrainConfig]] = {}
    for record in trained:
        config = read_config(record)
        key = _Runs(
            dataset=record.dataset,
            arch=arch_label(record.arch, config.activation if config else "relu"),
            method=record.method,
            variant=variant(record),
            precision=record.precision,
            device=record.device,
            settings=fingerprint(config, record) if config else record.run,
        )
        rows.setdefault(key, []).append(record)
        if config:
            configs.setdefault(key[:3], {})[key.settings] = config
    marks = {kind: describe_differences(known) for kind, known in configs.items()}
    in_order = sorted(rows, key=lambda key: (*key[:2], method_order(key.method), *key[2:]))
    return Table(
        name="training",
        title="Training",
        context={},
        columns=c.TRAINING,
        rows=tuple(
            Row(
                cells=_training_cells(key, rows[key]),
                marks=marks.get(key[:3], {}).get(key.settings, ()),
            )
            for key in in_order
        ),
        notes=(RUNS_NOTE,) if any(len(own) > 1 for own in rows.values()) else (),
    )


def evaluation_table(grouped: Mapping[Setting, Sequence[Line]]) -> Table:
    """Return a row for all evaluations of a network by an attack, on one device."""
    rows: dict[tuple[str, str, str, str, int, int], list[AttackRecord]] = {}
    for setting, lines in grouped.items():
        columns = c.attack_columns(lines)
        for line in lines:
            for attack, column in columns.items():
                for record in line.records.get(attack, {}).values():
                    suite = f"{column.label}, {setting.norm} {setting.eps}"
                    where = (record.device, record.n, record.processes)
                    key = (setting.dataset, line.subject.arch, suite, *where)
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
        c.METHOD.key: label(key.method, key.variant),
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
