"""What `adrbench train` would do about a run that its directory contains already."""

import math
from dataclasses import replace

from adrbench.checkpoints import format as checkpoints
from adrbench.errors import AdrbenchError, argument
from adrbench.runtime.context import Context
from adrbench.training.checkpointer import FILES, Checkpointer
from adrbench.training.plan import Plan
from adrbench.training.resume_checks import check_regular_files
from adrbench.training.run_record import check_own_record
from adrbench.training.state import Run, TrainState, build_state


def describe_existing(
    plan: Plan, context: Context, *, force: bool, are_images_assumed: bool
) -> str | None:
    """Return in a sentence what training with `plan` would do about files of a run of its name.

    It is None if there are none. All files are checked as if the run were resumed, without writing
    any, except that images which are assumed are not compared. Every rank calls this.
    """
    directory = plan.directory
    found = [path for path in (*(directory / name for name in FILES), plan.record) if path.exists()]
    if not found:
        return None
    if force:
        return f"train {argument('force', True)} would replace the run in {directory}."
    try:
        run = plan.prepare(context)
        state = restore(with_stored_images(run) if are_images_assumed else run, plan)
    except AdrbenchError as error:
        return f"train would be refused: {error}"
    if state.epochs_done == run.config.epochs:
        again = argument("force", True)
        return f"{directory} is already finished, see {plan.record}: {again} trains it again."
    return f"train would resume the run in {directory} {locate(run, state)}."


def restore(run: Run, plan: Plan) -> TrainState:
    """Return the saved state of `run`, or its first one; raise the errors of resuming it."""
    state = build_state(run)
    check_regular_files(run.directory, FILES)
    Checkpointer(run, save_seconds=math.inf).restore(state)
    check_own_record(plan.record, run, state)
    return state


def with_stored_images(run: Run) -> Run:
    """Return `run` with the hashes of images that its saved state has, if it has one.

    Raises:
        CheckpointError: when the state is damaged.

    """
    path = run.directory / checkpoints.LAST
    if not path.is_file():
        return run
    saved = checkpoints.load(path)
    return replace(run, data_sha256=saved.data_sha256, selection_sha256=saved.selection_sha256)


def locate(run: Run, state: TrainState) -> str:
    """Return the position of a state in words."""
    total = run.config.epochs
    if state.is_within_epoch:
        steps = f"{state.losses.recorded} of {run.steps_per_epoch} steps"
        return f"at epoch {state.epochs_done + 1} of {total}, after {steps}"
    return f"after epoch {state.epochs_done} of {total}"
