"""The record of a finished evaluation: whether it exists and belongs to this evaluation."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adrbench.data import to_float
from adrbench.errors import RecordError, argument
from adrbench.evaluation.adversarial import read_examples
from adrbench.evaluation.identity import EvaluationKey
from adrbench.evaluation.job import Job
from adrbench.evaluation.judge import is_within
from adrbench.evaluation.progress import Progress
from adrbench.evaluation.search import RECHECK
from adrbench.evaluation.state_files import progress_files
from adrbench.results.outputs import MAX_BYTES, outputs_path, read_outputs
from adrbench.results.records import (
    AttackRecord,
    StageResult,
    find_contradiction,
    read_record,
    unpack_outcomes,
)
from adrbench.runtime.context import Context
from adrbench.runtime.files import check_may_write, remove_file
from adrbench.runtime.hashing import hash_file


def find_finished(job: Job, context: Context) -> AttackRecord | None:
    """Return the record of an evaluation; None if there is none, or it was being redone.

    Raises:
        RecordError: when the file is broken, or the record of another evaluation.

    """
    exists, is_redone = context.process_group.broadcast(
        (job.path.exists(), bool(progress_files(job, 0).files()))
    )
    record = read_own_record(job.key, job.path) if exists else None
    return None if is_redone else record


@dataclass(frozen=True)
class FinishedProgress:
    """The progress of a finished evaluation, from its record; there is nothing to save."""

    record: AttackRecord

    def load(self) -> Progress:
        """Return the progress after the last attack."""
        record = self.record
        clean, robust = (
            torch.from_numpy(unpack_outcomes(packed, record.n))
            for packed in (record.verdicts.clean, record.verdicts.robust)
        )
        clean_pass = StageResult(name="clean", survivors=record.clean_correct, seconds=0.0)
        attacks = [stage for stage in record.stages if stage.name != RECHECK]
        return Progress(
            entered=robust, survivors=robust.clone(), clean=clean, stages=[clean_pass, *attacks]
        )

    def save(self, progress: Progress) -> None:
        """Do nothing."""


def has_outputs(path: Path, record: AttackRecord) -> bool:
    """Return whether the outputs of the `record` at `path` are in their file beside it."""
    own, file = outputs_path(path), record.outputs
    if file is None or file.name != own.name or not own.exists():
        return False
    try:
        read_outputs(own, file)
    except RecordError:
        return False
    return True


def remove_outputs(path: Path) -> None:
    """Remove the outputs of the record at `path`, which is about to be replaced by one without any.

    Only the file beside it that it describes is removed; there may be none.
    """
    try:
        record = read_record(path)
    except RecordError:
        return
    own, file = outputs_path(path), getattr(record, "outputs", None)
    if not file or file.name != own.name:
        return
    with contextlib.suppress(OSError):  # there is none
        if hash_file(own, MAX_BYTES) == file.sha256:
            check_may_write()
            own.unlink()


def remove_foreign_record(job: Job) -> None:
    """Remove a record that is broken or belongs to another evaluation, and its outputs.

    An evaluation that replaces it and is interrupted can then be resumed.
    """
    try:
        read_own_record(job.key, job.path)
    except RecordError:
        remove_outputs(job.path)
        remove_file(job.path)


def read_own_record(key: EvaluationKey, path: Path) -> AttackRecord:
    """Read the record of an evaluation.

    Raises:
        RecordError: when the file is broken, or the record of another evaluation.

    """
    try:
        record = read_record(path)
    except RecordError as error:
        reason = str(error).rstrip(".")
        raise RecordError(f"{reason}: give {argument('force', True)} to repeat it.") from error
    if not isinstance(record, AttackRecord):
        raise RecordError(f"{path} is not the record of an attack: {_advise_replacing()}")
    if contradiction := find_contradiction(record):
        raise RecordError(
            f"{path} is damaged ({contradiction}): give {argument('force', True)} to repeat it."
        )
    if difference := key.describe_difference(record):
        raise RecordError(
            f"{path} is the record of another evaluation ({difference}): {_advise_replacing()}"
        )
    return record


def _advise_replacing() -> str:
    """Return what to do about a record that is not that of the evaluation."""
    return f"record to another directory, or give {argument('force', True)} to replace it."


def check_saved_examples(path: Path, job: Job, record: AttackRecord) -> None:
    """Check that a file has the adversarial examples of a finished evaluation.

    Raises:
        RecordError: when there is no such file, or it has those of another evaluation.

    """
    again = f"give {argument('force', True)} to attack again"
    finished = f"{job.label} is already finished, see {job.path}, but"
    if not path.exists():
        raise RecordError(f"{finished} its adversarial examples were not saved in {path}: {again}.")
    if difference := _describe_other_examples(path, job, record):
        raise RecordError(
            f"{finished} {path} does not hold its adversarial examples ({difference}): {again} and "
            "replace it, or also give another name to keep it."
        )


def _describe_other_examples(path: Path, job: Job, record: AttackRecord) -> str | None:
    """Return in words why a file does not have the examples of a record; None if it has them."""
    x = to_float(job.images.pixels)
    try:
        held = read_examples(path, tuple(x.shape))
    except RecordError as error:
        return str(error)
    expected = {"y": job.images.labels.numpy(), "index": np.arange(len(job.images))}
    for name in ("clean", "robust"):
        if packed := getattr(record.verdicts, name):
            expected[name] = unpack_outcomes(packed, record.n)
    for name, values in expected.items() if path.suffix == ".npz" else ():
        if not np.array_equal(held[name], values):
            return f"{name} differs"
    x_adv = torch.from_numpy(held["x_adv"])
    if x_adv.shape != x.shape:
        return f"it has examples of shape {tuple(x_adv.shape)}, not {tuple(x.shape)}"
    if not is_within(record.threat_model, x, x_adv).all():
        return "some are outside the threat model"
    return None
