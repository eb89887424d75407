"""Attack records as a pandas table, one row per record: what `adrbench.load_results` returns."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrbench.report.naming import method_name
from adrbench.report.statistics import wilson_interval
from adrbench.results.records import AttackRecord, Record, read_records

if TYPE_CHECKING:
    import pandas as pd

COPIED = (
    *("dataset", "split", "n", "num_test", "num_classes", "published_test_set", "arch"),
    *("activation", "method", "weights", "selection", "selected_on", "epoch", "seed", "run"),
    *("suite", "attack_seed", "batch_size", "clean_correct", "robust_correct"),
    *("device", "precision", "created", "seconds", "checkpoint_sha256", "data_sha256"),
)
DERIVED = (
    *("row", "norm", "eps", "parameters", "clean_accuracy", "robust_accuracy"),
    *("robust_low", "robust_high", "warnings", "commit", "dirty"),
)
#: Columns of whole numbers in which a value may be missing.
NULLABLE = ("epoch", "seed")


def load_results(directory: str | Path) -> "pd.DataFrame":
    """Return `results_frame` of every record under `directory`.

    Raises:
        RecordError: when the directory is missing or holds no record.

    """
    return results_frame(read_records(Path(directory)))


def results_frame(records: Iterable[Record]) -> "pd.DataFrame":
    """Return one row per attack record, with its counts and the percentages they give.

    `row` is the method that the weights represent in a report; `robust_low` and `robust_high`
    are the 95 % Wilson interval in percent; `parameters` is JSON, `warnings` one text.
    """
    import pandas as pd

    rows = [_row(record) for record in records if isinstance(record, AttackRecord)]
    frame = pd.DataFrame(rows, columns=[*COPIED, *DERIVED])
    return frame.astype(dict.fromkeys(NULLABLE, "Int64"))


def _row(record: AttackRecord) -> dict[str, Any]:
    n = record.n
    low, high = wilson_interval(record.robust_correct, n) if n else (None, None)
    return {name: getattr(record, name) for name in COPIED} | {
        "row": method_name(record),
        "norm": record.threat_model.norm,
        "eps": record.threat_model.eps,
        "parameters": json.dumps(record.parameters, sort_keys=True),
        "clean_accuracy": 100 * record.clean_correct / n if n else None,
        "robust_accuracy": 100 * record.robust_correct / n if n else None,
        "robust_low": None if low is None else 100 * low,
        "robust_high": None if high is None else 100 * high,
        "warnings": "; ".join(record.warnings),
        "commit": record.software.commit,
        "dirty": record.software.dirty,
    }
