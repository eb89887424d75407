"""The record of a finished evaluation: whether it exists and belongs to this evaluation."""

from pathlib import Path

from adrbench.errors import RecordError, argument
from adrbench.evaluation.identity import EvaluationKey
from adrbench.evaluation.jobs import Job, progress_files
from adrbench.results.records import (
    AttackRecord,
    find_contradiction,
    read_record,
)
from adrbench.runtime.context import Context


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


def remove_foreign_record(job: Job) -> None:
    """Remove a file in place of the record that is broken or belongs to another evaluation.

    An evaluation that replaces it and is interrupted can then be resumed.
    """
    try:
        read_own_record(job.key, job.path)
    except RecordError:
        job.path.unlink(missing_ok=True)


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
