"""The training table: how long each run took, and where its best epochs lie."""

import math
from collections.abc import Iterable, Sequence

from adrbench.records import AttackRecord, TrainRecord
from adrbench.report import columns as c
from adrbench.report.tables import Cell, Row, Table


def training_table(trained: Sequence[TrainRecord], attacked: Iterable[AttackRecord]) -> Table:
    """Return one row per training record; best epochs are those that were attacked."""
    best_epochs: dict[str, dict[str, int]] = {}
    for record in attacked:
        if record.selection == "best" and record.epoch is not None:
            best_epochs.setdefault(record.run, {})[record.weights] = record.epoch
    ordered = sorted(trained, key=lambda record: (record.dataset, record.run, record.created))
    return Table(
        name="training",
        title="Training",
        context={},
        columns=c.TRAINING,
        rows=tuple(_row(record, best_epochs.get(record.run, {})) for record in ordered),
        notes=("best epoch: of the student, of the average, as far as each was attacked.",)
        if best_epochs
        else (),
    )


def _row(record: TrainRecord, best_epochs: dict[str, int]) -> Row:
    shown = [str(best_epochs[weights]) for weights in sorted(best_epochs, reverse=True)]
    cells: dict[str, Cell] = {
        "run": record.run,
        "dataset": record.dataset,
        "arch": record.arch,
        "method": record.method,
        "epochs": len(record.history),
        "best_epoch": ", ".join(shown) or None,
        "seconds": _finite(record.seconds),
        "images_per_second": _finite(record.images_per_second),
        "precision": record.precision,
        "device": record.device,
    }
    return Row(cells=cells)


def _finite(value: float) -> float | None:
    """Return `value`, or None where it is no number, which JSON could not hold."""
    return value if math.isfinite(value) else None
