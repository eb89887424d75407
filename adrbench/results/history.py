"""The history of a training run: a row per epoch.

Stored rows have flat keys (`student_robust_correct`, `temperature`); `to_json` and `from_json` are
the only place that uses them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from adrbench.config.method import WEIGHTS, Weights
from adrbench.config.settings import Select
from adrbench.errors import unknown_name
from adrbench.runtime.files import MAX_JSON_BYTES, read_limited
from adrbench.runtime.typed_json import from_json

#: The accuracy that chooses the best epoch.
Criterion = Literal["robust", "clean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many images a set of weights classifies correctly, without and under attack."""

    clean_correct: int
    robust_correct: int

    def of(self, criterion: Criterion) -> int:
        """Return the count that `criterion` names."""
        return self.robust_correct if criterion == "robust" else self.clean_correct


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryRow:
    """One epoch, counted from 1, validated on the `select_n` images of the split `select`.

    `lr` and `annealed`, the annealed values of the targets, are those of the last step. `seconds`
    includes the validation, `images_per_second` does not. `criterion` is missing in rows of early
    versions, which compared epochs by robust accuracy.

    Raises:
        ValueError: for counts that are impossible with `select_n` images.

    """

    epoch: int
    train_loss: float
    lr: float
    annealed: Mapping[str, float]
    select: Select
    select_n: int
    criterion: Criterion = "robust"
    counts: Mapping[Weights, Counts]
    images_per_second: float
    seconds: float

    def __post_init__(self) -> None:
        for weights, counts in self.counts.items():
            if not 0 <= counts.robust_correct <= counts.clean_correct <= self.select_n:
                raise ValueError(
                    f"{weights} counts of epoch {self.epoch} should satisfy robust_correct <= "
                    f"clean_correct <= select_n, not {counts.robust_correct}, "
                    f"{counts.clean_correct}, {self.select_n}"
                )

    def accuracy(self, weights: Weights, criterion: Criterion) -> float:
        """Return the accuracy of `weights` on the validation images, in percent.

        Raises:
            UsageError: for weights that the run does not have.

        """
        if weights not in self.counts:
            raise unknown_name("weights", weights, self.counts)
        return 100 * self.counts[weights].of(criterion) / self.select_n

    def to_json(self) -> dict[str, Any]:
        """Return the row as it is stored."""
        stored: dict[str, Any] = {}
        for name in HistoryRow.__dataclass_fields__:
            if name == "annealed":
                stored |= self.annealed
            elif name == "counts":
                for weights, counts in self.counts.items():
                    stored |= {f"{weights}_{key}": count for key, count in asdict(counts).items()}
            else:
                stored[name] = getattr(self, name)
        return stored

    @classmethod
    def from_json(cls, stored: object) -> "HistoryRow":
        """Read a stored row; ValueError names the field that is wrong.

        A key that is neither a field nor a count is an annealed number, null in rows of early
        versions where the method anneals nothing.
        """
        if not isinstance(stored, Mapping):
            raise ValueError(f"a history row should be a table, not a {type(stored).__name__}")
        counts: dict[str, dict[str, Any]] = {}
        annealed: dict[str, Any] = {}
        row: dict[str, Any] = {"annealed": annealed, "counts": counts}
        for key, value in stored.items():
            if key in FIELDS:
                row[key] = value
            elif key in COUNTS:
                weights, name = COUNTS[key]
                counts.setdefault(weights, {})[name] = _checked(key, value, int)
            elif value is not None:
                annealed[key] = _checked(key, value, float)
        return from_json(cls, row)


def read_history(path: Path) -> list[HistoryRow]:
    """Return the rows of a history file; none if it is missing.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is damaged.
        RecursionError: when values in it are nested too deep.

    """
    try:
        lines = read_limited(path, MAX_JSON_BYTES).decode().splitlines()
    except FileNotFoundError:
        return []
    return [HistoryRow.from_json(json.loads(line)) for line in lines]


def _checked(key: str, value: object, kind: type) -> object:
    """Return `value`; ValueError, naming the stored key, unless it is a number of that kind."""
    allowed = (int, float) if kind is float else (int,)
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise ValueError(f"field {key} should be {kind.__name__}, not {value!r:.40}")
    return value


#: The fields that are stored under their own names.
FIELDS = frozenset(HistoryRow.__dataclass_fields__) - {"annealed", "counts"}
#: key of a stored count -> its weights and its field of `Counts`.
COUNTS = {
    f"{weights}_{name}": (weights, name)
    for weights in WEIGHTS
    for name in Counts.__dataclass_fields__
}
