"""Records: one JSON file per finished training run, evaluation or inspection.

Records store counts and how they were obtained; reports derive the percentages. Each record has a
schema number: an older record is migrated when it is read, a newer one is refused.
"""

import base64
import json
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adrbench.config.threat import ThreatModel
from adrbench.errors import RecordError
from adrbench.results.history import HistoryRow
from adrbench.results.inspection import InspectRecord
from adrbench.results.migrations import MIGRATIONS, SCHEMA
from adrbench.results.outputs import OutputsFile
from adrbench.results.software import Software
from adrbench.runtime.arithmetic import FLOAT32
from adrbench.runtime.files import MAX_JSON_BYTES, read_limited, write_atomically
from adrbench.runtime.typed_json import from_json, to_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: A subdirectory of a results directory that is read only when it is given itself.
PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """One attack of a suite: the number of examples that survived it, and its duration."""

    name: str
    survivors: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """Per-example outcomes in test-set order, as packed bits in base64 (first image first)."""

    clean: str
    robust: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackRecord:
    """One evaluation of one set of weights under one suite.

    `weights` is student, average, or file (weights that are neither); `selection` is best, last
    or file; `selected_on` is the split used to choose the best epoch. The first `n` of `num_test`
    images were used, in official order; `published_test_set` is true for a benchmark's own test
    set. `seed` (of the training) and `epoch` are null for weights of unknown origin.

    `checkpoint_sha256` identifies the file, `weights_sha256` the model as it was evaluated, with
    its normalization. `training_sha256` identifies the training settings without the seed, and
    `training_images_sha256` all training images, before any were held out for validation; both
    are null where unknown. `label` is the run's name where the user chose one, else "".
    `searched` is the arithmetic of the attacks, `judged` and `precision` are that in which the
    outcomes were determined. `rechecked` images were fooled by an attack only in the arithmetic
    of its search, and attacked again in float32. `repeated` images were in batches with passes
    that were repeated in float32, because results of the search were not finite. `folded` is true
    if the attacks ran on a form of the model with BatchNorm folded into its convolutions, and
    `compiled` if passes of the largest batches were compiled; `processes` shared the work, which
    does not change the outcomes. `verdicts` holds the per-example outcomes. `clean_logits` are
    those of the first 8 images, which identify the code of the model (null in records of early
    versions); `model_code` is a fingerprint of the user's source code behind it ("" if there is
    none, null in records of early versions). `outputs` is the file of the model's outputs on all
    images, clean and attacked, if they were kept.
    """

    kind: Literal["attack"] = "attack"
    dataset: str
    split: str
    n: int
    num_test: int
    num_classes: int
    published_test_set: bool
    data_sha256: str
    arch: str
    activation: str
    method: str
    weights: Literal["student", "average", "file"]
    selection: Literal["best", "last", "file"]
    selected_on: Literal["val", "test"] | None
    epoch: int | None
    seed: int | None
    run: str
    checkpoint_sha256: str
    weights_sha256: str
    training_sha256: str | None
    training_images_sha256: str | None = None
    label: str = ""
    threat_model: ThreatModel
    suite: str
    parameters: dict[str, Any]
    attack_seed: int
    batch_size: int
    clean_correct: int
    robust_correct: int
    stages: tuple[StageResult, ...]
    verdicts: Outcomes
    clean_logits: str | None = None
    model_code: str | None = None
    warnings: tuple[str, ...]
    software: Software
    device: str
    precision: str = FLOAT32
    searched: str = FLOAT32
    judged: str = FLOAT32
    rechecked: int = 0
    repeated: int = 0
    folded: bool = False
    compiled: bool = False
    processes: int = 1
    outputs: OutputsFile | None = None
    created: str
    seconds: float
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not 0 <= self.robust_correct <= self.clean_correct <= self.n <= self.num_test:
            raise ValueError(
                "counts should satisfy robust_correct <= clean_correct <= n <= num_test, not "
                f"{self.robust_correct}, {self.clean_correct}, {self.n}, {self.num_test}"
            )
        if not self.n:
            raise ValueError("n should be at least 1, not 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A part of a training run without interruption, beginning at step `first_step` (from 0).

    `device` is that of rank 0; `started` is in UTC. `compiled` is whether the networks of its steps
    ran compiled.
    """

    first_step: int
    processes: int
    device: str
    started: str
    compiled: bool = False


def count_processes(sessions: Sequence[Session]) -> int:
    """Return the largest number of processes that trained a run together."""
    return max((session.processes for session in sessions), default=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecord:
    """One finished training run: its configuration and a history row per epoch.

    `history` has the rows as they are stored, which `rows` reads: a report on thousands of runs
    only counts them. `run_id` is also in the run's checkpoints ("" for runs of early versions).
    `sessions` lists the start and each resumption of the run; `software`,
    `device` and `precision` are those of the last one. `training_images_sha256`
    and `label` are as in AttackRecord.
    """

    kind: Literal["train"] = "train"
    run: str
    run_id: str = ""
    dataset: str
    arch: str
    method: str
    seed: int
    config: dict[str, Any]
    training_images_sha256: str | None = None
    label: str = ""
    history: tuple[dict[str, Any], ...]
    num_train: int
    num_val: int
    seconds: float
    images_per_second: float
    software: Software
    device: str
    precision: str
    sessions: tuple[Session, ...] = ()
    created: str
    schema: int = SCHEMA

    def rows(self) -> list[HistoryRow]:
        """Return the history, a row per epoch; ValueError names a field that is wrong."""
        return [HistoryRow.from_json(row) for row in self.history]


Record = AttackRecord | TrainRecord | InspectRecord
KINDS: dict[str, type[AttackRecord] | type[TrainRecord] | type[InspectRecord]] = {
    "attack": AttackRecord,
    "train": TrainRecord,
    "inspect": InspectRecord,
}


@dataclass
class Skipped:
    """Files of a results directory that are not records, with the reason for each."""

    reasons: dict[Path, str] = field(default_factory=dict)


def pack_outcomes(correct: "npt.NDArray[np.bool_]") -> str:
    """Pack booleans of shape (n,) into base64 text, eight to a byte."""
    import numpy as np

    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpack_outcomes(packed: str, n: int) -> "npt.NDArray[np.bool_]":
    """Return the n booleans that `pack_outcomes` packed."""
    import numpy as np

    raw = np.frombuffer(_decode_outcomes(packed, n), dtype=np.uint8)
    return np.unpackbits(raw, count=n).astype(np.bool_)


def _decode_outcomes(packed: str, n: int) -> bytes:
    """Return the bits of n outcomes, eight to a byte; RecordError where `packed` has others."""
    try:
        raw = base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise RecordError(f"the outcomes are not base64 ({error})") from error
    if len(raw) != (n + 7) // 8:
        raise RecordError(f"{len(raw)} bytes of outcomes cannot hold {n} images")
    return raw


def pack_logits(logits: "npt.NDArray[np.float32]") -> str:
    """Pack logits of shape (N, num_classes) into base64 text: little-endian float32, by row."""
    return base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii")


def unpack_logits(packed: str, num_classes: int) -> "npt.NDArray[np.float32]":
    """Return the logits, (N, num_classes), that `pack_logits` packed."""
    import numpy as np

    try:
        raw = base64.b64decode(packed, validate=True)
        return np.frombuffer(raw, dtype="<f4").astype(np.float32).reshape(-1, num_classes)
    except ValueError as error:
        raise RecordError(f"the logits are not those of {num_classes} classes ({error})") from error


def find_contradiction(record: AttackRecord) -> str | None:
    """Return how the counts, stages and outcomes of a record contradict each other, or None."""
    try:
        is_clean, is_robust = (
            int.from_bytes(_decode_outcomes(packed, record.n))
            for packed in (record.verdicts.clean, record.verdicts.robust)
        )
    except RecordError as error:
        return str(error)
    counted = (is_clean.bit_count(), is_robust.bit_count())
    counts = (record.clean_correct, record.robust_correct)
    if counted != counts or is_robust & ~is_clean:
        return f"its counts are {counts}, but its outcomes give {counted}"
    survivors = [record.clean_correct, *(stage.survivors for stage in record.stages)]
    if survivors != sorted(survivors, reverse=True) or survivors[-1] != record.robust_correct:
        return f"its robust count is {record.robust_correct}, but its stages leave {survivors[-1]}"
    return None


def write_record(path: Path, record: Record) -> None:
    """Write `record` as JSON, by rename."""
    write_atomically(path, (json.dumps(to_json(record), indent=1) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        RecordError: when the file is not a record, is broken, or is of a newer schema.

    """
    try:
        data = json.loads(read_limited(path, MAX_JSON_BYTES).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not readable as JSON ({error}).") from error
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS or "schema" not in data:
        raise RecordError(f"{path} is not an adrbench record (no schema and kind in it).")
    try:
        record = from_json(KINDS[kind], migrate(data))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a valid record: {str(error).rstrip('.')}.") from error
    contradiction = None
    if isinstance(record, AttackRecord) and (record.verdicts.clean or record.verdicts.robust):
        contradiction = find_contradiction(record)
    if contradiction:
        raise RecordError(f"{path} is not a valid record: {contradiction}.")
    return record


def migrate(data: dict[str, Any]) -> dict[str, Any]:
    """Migrate a record to the current schema; RecordError if its schema is newer."""
    schema = data["schema"]
    if not isinstance(schema, int) or schema > SCHEMA:
        raise RecordError(
            f"its schema is {reprlib.repr(schema)}, but this version reads up to {SCHEMA}; update "
            "adrbench"
        )
    while schema < SCHEMA:
        if schema not in MIGRATIONS:
            raise RecordError(f"its schema {reprlib.repr(schema)} was never published")
        data = MIGRATIONS[schema](data) | {"schema": schema + 1}
        schema += 1
    return data


def check_exists(path: Path) -> None:
    """Raise RecordError unless there is a file or directory at `path`."""
    if not path.exists():
        raise RecordError(
            f"{path} does not exist: give a record or a directory of records, such as `adrbench "
            "attack` writes."
        )


def read_records(directory: Path, skipped: Skipped | None = None) -> list[Record]:
    """Read every record under `directory`, in the order of file names.

    Files that are not records are omitted and added to `skipped`.

    Raises:
        RecordError: when the directory is missing or contains no record at all.

    """
    check_exists(directory)
    skipped = skipped if skipped is not None else Skipped()
    records: list[Record] = []
    for path in record_paths(directory):
        try:
            records.append(read_record(path))
        except RecordError as error:
            skipped.reasons[path] = str(error)
    if not records:
        foreign = " among the JSON files there" if skipped.reasons else ""
        raise RecordError(f"no results in {directory}{foreign}: run `adrbench attack` first.")
    return records


def record_paths(directory: Path) -> Iterator[Path]:
    """Yield the JSON files under `directory`, sorted, except hidden ones and those in PUBLISHED.

    PUBLISHED contains results that come with the project, which must not mix with the user's own.
    """
    published = directory / PUBLISHED
    for path in sorted(directory.rglob("*.json")):
        if not path.name.startswith(".") and published not in path.parents:
            yield path
