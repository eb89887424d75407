"""What the figures took: seconds of training and of attacks, and on which hardware."""

from collections.abc import Iterable, Sequence

from adrbench.config import TrainConfig
from adrbench.records import AttackRecord, TrainRecord
from adrbench.report import columns as c
from adrbench.report.figures import spread
from adrbench.report.lines import arch_label, network, variant
from adrbench.report.settings import fingerprint, read_config
from adrbench.report.tables import Cell, Row, Table

SPREAD_NOTE = "± is the sample standard deviation over {}."


def training_table(trained: Iterable[TrainRecord]) -> Table:
    """Return a row for the training runs that differ in nothing but the seed."""
    rows: dict[tuple[str, ...], list[TrainRecord]] = {}
    for record in trained:
        name, config = variant(record), read_config(record)
        settings = fingerprint(config, record) if config else record.run
        method = f"{record.method} ({name})" if name else record.method
        where = (record.precision, record.device, settings)
        rows.setdefault((record.dataset, _arch(record, config), method, *where), []).append(record)
    return Table(
        name="training",
        title="Training",
        context={},
        columns=c.TRAINING,
        rows=tuple(_training_row(key, rows[key]) for key in sorted(rows)),
        notes=(SPREAD_NOTE.format("runs"),) if any(len(own) > 1 for own in rows.values()) else (),
    )


def evaluation_table(attacked: Iterable[AttackRecord]) -> Table:
    """Return a row for the evaluations of one network, suite, number of images and device."""
    rows: dict[tuple[str, str, str, str, int], list[AttackRecord]] = {}
    for record in attacked:
        key = (record.dataset, network(record), record.suite, record.device, record.n)
        rows.setdefault(key, []).append(record)
    return Table(
        name="evaluation",
        title="Evaluation",
        context={},
        columns=c.EVALUATION,
        rows=tuple(_evaluation_row(key, rows[key]) for key in sorted(rows)),
        notes=(SPREAD_NOTE.format("evaluations"),)
        if any(len(own) > 1 for own in rows.values())
        else (),
    )


def _arch(record: TrainRecord, config: TrainConfig | None) -> str:
    return arch_label(record.arch, config.activation if config else "relu")


def _training_row(key: tuple[str, ...], records: Sequence[TrainRecord]) -> Row:
    dataset, arch, method, precision, device, _ = key
    cells: dict[str, Cell] = {
        c.DATASET.key: dataset,
        c.ARCH.key: arch,
        c.METHOD.key: method,
        c.PRECISION.key: precision,
        c.DEVICE.key: device,
        c.SEEDS.key: len({record.seed for record in records}),
        "num_train": records[0].num_train,
        "epochs": len(records[0].history),
        c.SECONDS.key: spread([record.seconds for record in records]),
        "images_per_second": spread([record.images_per_second for record in records]),
    }
    return Row(cells=cells)


def _evaluation_row(key: tuple[str, str, str, str, int], records: Sequence[AttackRecord]) -> Row:
    dataset, arch, suite, device, n = key
    cells: dict[str, Cell] = {
        c.DATASET.key: dataset,
        c.ARCH.key: arch,
        c.SUITE.key: suite,
        c.DEVICE.key: device,
        c.N.key: n,
        "evaluations": len(records),
        c.SECONDS.key: spread([record.seconds for record in records]),
    }
    return Row(cells=cells)
