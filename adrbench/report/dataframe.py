"""Attack records as a pandas table, one row per record: what `adrbench.load_results` returns."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrbench.errors import RecordError
from adrbench.report.grouping import group_records
from adrbench.report.naming import method_name
from adrbench.report.reading import DEFAULT, read_results, select_latest
from adrbench.report.statistics import wilson_interval
from adrbench.results.records import AttackRecord, Record, unpack_outcomes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

COPIED = (
    *("dataset", "split", "n", "num_test", "num_classes", "published_test_set", "arch"),
    *("activation", "method", "weights", "selection", "selected_on", "epoch", "seed", "run"),
    *("suite", "attack_seed", "batch_size", "clean_correct", "robust_correct"),
    *("device", "precision", "judged", "searched", "rechecked", "repeated", "compiled"),
    *("created", "seconds"),
    *("checkpoint_sha256", "data_sha256"),
)
DERIVED = (
    *("row", "norm", "eps", "parameters", "clean_accuracy", "robust_accuracy"),
    *("robust_low", "robust_high", "warnings", "commit", "dirty"),
    *("clean_outcomes", "robust_outcomes", "superseded", "latest"),
)
#: Columns of whole numbers in which a value may be missing.
NULLABLE = ("epoch", "seed")


def load_results(*results: str | Path) -> "pd.DataFrame":
    """Return one row per evaluation in `results`: directories, or files of one record each.

    By default, the directory `results` is read. A file that is found twice counts once. Accuracies
    are in percent, as in the tables of a report (`adrbench.evaluate` returns fractions). The
    columns, in which unknown values are None or NA:

    - `dataset`, `split` (test or val), `n` (images evaluated, the first of `num_test`),
      `num_test`, `num_classes`, `published_test_set` (whether `num_test` are a benchmark's own),
      `data_sha256` (of the images and labels);
    - `arch`, `activation`, `method` (of the run), `weights` (student, average or file),
      `selection` (best, last or file), `selected_on` (val or test: the split used to choose the
      best epoch), `epoch` (from 1), `seed` (of the training run), `run` (its name),
      `checkpoint_sha256` (of the file), `row` (the method that the weights represent in a report,
      or the name of the run);
    - `suite`, `parameters` (of its attacks, as JSON), `norm`, `eps` (a fraction of 1),
      `attack_seed`, `batch_size`;
    - `clean_correct`, `robust_correct` (images, of `n`), `clean_accuracy`, `robust_accuracy`,
      and the latter's 95 % Wilson interval from `robust_low` to `robust_high`, in percent;
    - `clean_outcomes`, `robust_outcomes`: arrays of `n` booleans in the order of the test set, true
      for an image that is classified correctly, without an attack and under every attack (for a
      suite without an attack, the two are equal, as are the counts);
    - `warnings` (one text), `device`, `judged` and `precision` (both the arithmetic in which
      outcomes were judged), `searched` (that of the attacks), `rechecked` (images that were
      attacked again in float32), `repeated` (images in batches with passes that were repeated in
      float32, as results of the search were not finite), `compiled` (whether passes of the largest
      batches were), `seconds` (of the whole evaluation), `created` (UTC, ISO 8601), `commit`,
      `dirty` (of the code);
    - `superseded`: whether reports omit the row because the rows include a later evaluation of the
      same weights with the same attack;
    - `latest`: whether `adrbench report --latest` includes the row: it is the newest evaluation of
      its `run`, data set, checkpoint and weights by a suite of this name at this radius.

    Example, which prints the accuracy per suite and the fraction of images on which two rows
    differ:

    >>> import adrbench
    >>> frame = adrbench.load_results("results/published/digits")
    >>> frame = frame[~frame["superseded"] & (frame["selection"] == "last")]
    >>> means = frame[frame["row"] == "adr+wa"].groupby("suite")["robust_accuracy"].mean()
    >>> print(means.round(2).to_dict())
    {'autoattack': 70.56, 'pgd-20': 73.5}
    >>> first, second = frame[frame["suite"] == "autoattack"]["robust_outcomes"].iloc[:2]
    >>> print(f"{(first != second).mean():.3f}")
    0.056

    Raises:
        RecordError: when a path is missing, a directory has no record, or a file is not a record.

    """
    paths = [Path(path) for path in results] or [DEFAULT]
    return results_frame(read_results(paths))


def results_frame(records: Iterable[Record]) -> "pd.DataFrame":
    """Return one row per attack record, with the columns of `load_results`."""
    import pandas as pd

    attacked = [record for record in records if isinstance(record, AttackRecord)]
    superseded = _find_superseded(attacked)
    newest = select_latest(attacked)
    latest = {id(record) for record in newest} - _find_superseded(newest)
    rows = [
        _row(record) | {"superseded": id(record) in superseded, "latest": id(record) in latest}
        for record in attacked
    ]
    frame = pd.DataFrame(rows, columns=[*COPIED, *DERIVED])
    return frame.astype(dict.fromkeys(NULLABLE, "Int64") | {"superseded": bool, "latest": bool})


def _find_superseded(records: Iterable[Record]) -> set[int]:
    """Return the ids of the records that a report omits in favor of newer ones."""
    return {
        id(record)
        for groups in group_records(
            record for record in records if isinstance(record, AttackRecord)
        ).values()
        for group in groups
        for record in group.superseded
    }


def _outcomes(packed: str, n: int) -> "npt.NDArray[np.bool_] | None":
    """Return (n,) outcomes; None where a record of an early version has none."""
    try:
        return unpack_outcomes(packed, n)
    except RecordError:
        return None


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
        "clean_outcomes": _outcomes(record.verdicts.clean, n),
        "robust_outcomes": _outcomes(record.verdicts.robust, n),
    }
