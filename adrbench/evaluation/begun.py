"""The arithmetic in which an interrupted evaluation was begun, and in which "auto" resumes it."""

from dataclasses import replace

import torch

from adrbench.errors import RecordError, UsageError
from adrbench.evaluation.job import Job
from adrbench.evaluation.state_files import StateLocation, beside_record, progress_files
from adrbench.printable import get_logger
from adrbench.runtime.arithmetic import ARITHMETICS, RANKED, Arithmetic, choose_for_search

logger = get_logger(__name__)


def adopt_begun(job: Job, device: torch.device, location: StateLocation | None = None) -> Job:
    """Return `job` in the arithmetic of its saved progress, if "auto" chose that of the job.

    Only the arithmetics whose searches are ranked together replace one another; those in 16 bits
    are other evaluations. Progress that is not of this evaluation is left for `saved_state` to
    refuse.

    Raises:
        UsageError: when `device` lacks the arithmetic of the progress.

    """
    begun = find_begun(job, location) if job.is_automatic else None
    if begun in (None, job.searched):
        return job
    assert begun is not None
    try:
        choose_for_search(begun, device)
    except UsageError:
        remedy = (location or beside_record(job)).remedy
        raise UsageError(
            f"the search of {job.label} was begun in {begun}, which {device} does not have: resume "
            f"it on a GPU that has it, or {remedy}."
        ) from None
    logger.info(f"resuming {job.label} in {begun}, in which its search was begun.")
    return in_arithmetic(job, begun)


def find_begun(job: Job, location: StateLocation | None = None) -> Arithmetic | None:
    """Return the arithmetic of the saved progress of `job`; None if there is none of it."""
    for arithmetic in ARITHMETICS:
        if arithmetic in RANKED:
            files = progress_files(in_arithmetic(job, arithmetic), 0, location)
            try:
                if files.load() is not None:
                    return arithmetic
            except RecordError:
                continue
    return None


def in_arithmetic(job: Job, searched: Arithmetic) -> Job:
    """Return `job` with another arithmetic of its search, one that is ranked with its own."""
    return replace(
        job,
        config=replace(job.config, precision=searched),
        identity=replace(job.identity, searched=searched),
    )
