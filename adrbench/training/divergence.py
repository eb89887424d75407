"""Stopping a run whose loss or weights are no longer finite, before that state is saved."""

from adrbench.checkpoints.format import LAST
from adrbench.checkpoints.state_dicts import find_nonfinite
from adrbench.errors import AdrbenchError, argument
from adrbench.training.state import Run, TrainState


def check_finite(run: Run, state: TrainState) -> None:
    """Wait for the losses so far; raise AdrbenchError unless they and the weights are finite.

    The weights are those of the student and of the average, with BatchNorm's statistics. They and
    the losses are the same on all ranks, so all of them raise or none does.
    """
    state.losses.arrived(wait=True)
    if state.losses.not_finite:
        index, loss = state.losses.not_finite
        step = state.epochs_done * run.steps_per_epoch + index
        raise AdrbenchError(f"the loss is {loss} at {explain(run, step)}")
    if any(find_nonfinite(model.state_dict()) for model in state.models().values()):
        where = explain(run, state.steps_done - 1)
        raise AdrbenchError(f"the weights are not finite after {where}")


def explain(run: Run, step: int) -> str:
    """Describe at which step a run diverged, what is kept, and what to try instead."""
    epoch, index = divmod(step, run.steps_per_epoch)
    is_saved = (run.directory / LAST).exists()
    kept = f"{run.directory} keeps the last good state" if is_saved else "nothing was saved yet"
    instead = f"a lower {argument('lr')}"
    if run.config.precision != "float32":
        instead += f" or {argument('precision', 'float32')}"
    return (
        f"step {index + 1} of epoch {epoch + 1} at learning rate {run.learning_rate(step):g}: "
        f"{kept}; start over with {instead}, under another {argument('name')} or with "
        f"{argument('force', True)}."
    )
