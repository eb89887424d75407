"""Running a plan, for the command line and for Python: resuming, errors and interruptions."""

import signal
from pathlib import Path

from adrbench.checkpoints.format import LAST
from adrbench.config.settings import TrainConfig
from adrbench.errors import argument
from adrbench.printable import get_logger
from adrbench.results.records import TrainRecord
from adrbench.runtime.context import Context
from adrbench.runtime.files import check_writable
from adrbench.runtime.launch import is_restarted
from adrbench.runtime.memory_errors import explaining_memory_errors
from adrbench.runtime.signals import Interrupted
from adrbench.training import loop
from adrbench.training.callbacks import Callbacks, NoCallbacks, combine
from adrbench.training.checkpointer import is_finished
from adrbench.training.plan import Plan

logger = get_logger(__name__)


class HasBegun(NoCallbacks):
    """Callbacks that note whether training has begun in this session."""

    def __init__(self) -> None:
        self.is_true = False

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Note it."""
        self.is_true = True


def run_plan(plan: Plan, context: Context, *, force: bool, callbacks: Callbacks) -> TrainRecord:
    """Train on this rank, resuming what was interrupted unless `force`; rank 0 writes.

    Raises:
        AdrbenchError: where the run cannot start or go on (see `loop.train`); also when memory
            does not suffice, and when code of a user's own raises.
        Interrupted: with the position of the run, when it was interrupted.

    """
    group, has_begun = context.process_group, HasBegun()
    force = force and not is_restarted(group)
    if group.is_rank_zero and (force or not is_finished(plan.directory, plan.config)):
        for place in (plan.directory, plan.record.parent):
            check_writable(place)
    try:
        with explaining_memory_errors(plan.config.batch_size):
            record = loop.train(
                plan.config,
                plan.dataset,
                plan.directory,
                context=context,
                force=force,
                callbacks=combine(has_begun, callbacks),
                save_seconds=60 * plan.save_minutes,
                record=plan.record,
                architecture=plan.architecture,
            )
    except KeyboardInterrupt as stop:
        raise locate(stop, plan.directory, has_begun=has_begun.is_true) from None
    if group.is_rank_zero and not has_begun.is_true:
        again = argument("force", True)
        logger.info(
            f"{plan.directory} is already finished, see {plan.record}: {again} trains it again."
        )
    return record


def locate(stop: KeyboardInterrupt, directory: Path, *, has_begun: bool) -> Interrupted:
    """Return the interruption with the position of the run, unless the loop has already set it."""
    if isinstance(stop, Interrupted) and stop.where:
        return stop
    number = getattr(stop, "number", signal.SIGINT)
    if has_begun and (directory / LAST).exists():
        where = f"before the next save; {directory} has the last saved state"
        return Interrupted(number, where)
    where = "before anything was saved" if has_begun else "before the first step"
    return Interrupted(number, where, resumes=False)
