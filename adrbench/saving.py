"""A run's directory: what is saved when, and how a run is taken up again.

`last.pt` is the state of the run, at the end of an epoch or anywhere within. `best.pt` and the
history follow from it and are written after it, so what a killed process left out of them is made
up for when the run is taken up. One process of a world writes, the others have the same state.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adrbench import checkpoint as checkpoints
from adrbench.checkpoint import Checkpoint, ModelShape, Snapshot
from adrbench.config import TrainConfig, flag
from adrbench.errors import AdrbenchError, CheckpointError
from adrbench.files import write_atomically
from adrbench.graphs import Losses
from adrbench.notes import first_line
from adrbench.records import Session
from adrbench.runs import HistoryRow, Run
from adrbench.schema import from_json, to_json
from adrbench.stopping import SIGNALS, Interrupted, Stop
from adrbench.world import is_same

CONFIG, HISTORY, LOCK = "config.json", "history.jsonl", ".lock"
FILES = (checkpoints.LAST, checkpoints.BEST, HISTORY, CONFIG)

#: What a process wants after a step, or the number of the signal it got. The largest wish of all
#: processes is done.
GO_ON, SAVE, GIVE_UP = 0, 1, 1000
assert all(SAVE < number < GIVE_UP for number in SIGNALS)


class Saver:
    """Saves a run after a step where that is due, and leaves it there when `stop` was asked for."""

    def __init__(self, run: Run, every_seconds: float, stop: Stop) -> None:
        self.run = run
        self.every_seconds = every_seconds
        self.stop = stop
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save, stop, or neither, as the processes agree.

        Raises:
            Interrupted: once the run is saved.
            AdrbenchError: instead of saving a state that is not finite.

        """
        is_due = time.monotonic() - self.saved_at >= self.every_seconds
        wish = self.stop.number or (SAVE if is_due else GO_ON)
        wish = self.run.world.highest(GIVE_UP if self.run.losses.not_finite else wish)
        if wish == GO_ON:
            return
        check_finite(self.run)
        self.save()
        if wish > SAVE:
            self.leave(wish)

    def after_epoch(self) -> None:
        """Save, and stop where that was asked for meanwhile and work is left, likewise."""
        self.save()
        wish = self.run.world.highest(self.stop.number or GO_ON)
        if wish and not self.run.finished:
            self.leave(wish)

    def save(self) -> None:
        """Save now."""
        save(self.run)
        self.saved_at = time.monotonic()

    def leave(self, number: int) -> None:
        """Raise Interrupted, when the process that saves has done so."""
        run = self.run
        run.world.wait()
        step = run.steps_done - run.epochs_done * run.steps_per_epoch
        where = (
            f"step {step} of epoch {run.epochs_done + 1}" if step else f"epoch {run.epochs_done}"
        )
        raise Interrupted(number, f"{run.directory} is saved after {where}")


def check_finite(run: Run) -> None:
    """Wait for the losses so far; raise AdrbenchError unless they and the weights are finite.

    All processes have the same losses and weights, and come to the same.
    """
    run.losses.arrived(wait=True)
    if run.losses.not_finite:
        index, loss = run.losses.not_finite
        step = run.epochs_done * run.steps_per_epoch + index
        raise AdrbenchError(f"the loss is {loss} at {explain(run, step)}")
    if not all(parameter.isfinite().all() for parameter in run.model.parameters()):
        raise AdrbenchError(f"the weights are not finite after {explain(run, run.steps_done - 1)}")


def explain(run: Run, step: int) -> str:
    """Return where in the run something stopped being finite, what is kept, and what to try."""
    epoch, index = divmod(step, run.steps_per_epoch)
    is_saved = (run.directory / checkpoints.LAST).exists()
    kept = f"{run.directory} keeps the last good state" if is_saved else "nothing was saved yet"
    instead = "a lower --lr" + (" or --precision float32" * (run.config.precision != "float32"))
    return (
        f"step {index + 1} of epoch {epoch + 1} at learning rate {run.lr(step):g}: {kept}; start "
        f"over with {instead}, under another --name or with --force."
    )


def save(run: Run) -> None:
    """Write the state, then what follows from it; only the first process of a world does."""
    if not run.world.is_first:
        return
    row = run.history[-1] if run.history and not run.losses.recorded else None
    here = {
        weights: snapshot(model, weights, run.epochs_done, row)
        for weights, model in run.models().items()
    }
    lr = run.lr(max(0, run.steps_done - 1))
    for group in run.optimizer.param_groups:
        group["lr"] = lr  # on a GPU it is a tensor there
    training = {
        "optimizer": run.optimizer.state_dict(),
        "history": run.history,
        "losses": run.losses.so_far(),
        "seconds": run.seconds,
        "sessions": to_json(run.sessions),
    }
    checkpoints.save(run.directory / checkpoints.LAST, as_checkpoint(run, "last", here, training))
    if row is not None:
        publish(run, here)


def publish(run: Run, here: Mapping[str, Snapshot]) -> None:
    """Write the best weights and the history where they are not yet those of the state.

    `here` are the weights of the state, which ends an epoch.
    """
    better = {
        weights: taken
        for weights, taken in here.items()
        if best_row(run.history, weights)["epoch"] == taken.epoch
        and (weights not in run.best or run.best[weights].epoch != taken.epoch)
    }
    if better:
        run.best |= better
        path = run.directory / checkpoints.BEST
        checkpoints.save(path, as_checkpoint(run, "best", run.best, None))
    path = run.directory / HISTORY
    lines = "".join(json.dumps(line) + "\n" for line in run.history).encode()
    if not path.exists() or path.read_bytes() != lines:
        write_atomically(path, lines)


def best_row(history: Sequence[HistoryRow], weights: str) -> HistoryRow:
    """Return the epoch that selection chooses for `weights`: the first of the highest accuracy.

    The accuracy is that of the objective's criterion; the other of clean and robust breaks ties.
    """

    def score(row: HistoryRow) -> tuple[int, int]:
        counts = {name: row[f"{weights}_{name}_correct"] for name in ("clean", "robust")}
        first = counts.pop(row["criterion"])
        return first, *counts.values()

    return max(history, key=score)


def snapshot(model: nn.Module, weights: str, epoch: int, row: HistoryRow | None) -> Snapshot:
    """Return a copy of a model's weights on the CPU; `row` is that of `epoch` if it ends here."""
    counts = row or {}
    return Snapshot(
        state={
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in model.state_dict().items()
        },
        epoch=epoch,
        clean_correct=counts.get(f"{weights}_clean_correct"),
        robust_correct=counts.get(f"{weights}_robust_correct"),
    )


def as_checkpoint(
    run: Run,
    selection: checkpoints.Selection,
    snapshots: dict[str, Snapshot],
    training: dict[str, Any] | None,
) -> Checkpoint:
    """Return what a checkpoint file of this run holds."""
    return Checkpoint(
        selection=selection,
        config=run.config,
        shape=ModelShape(
            arch=run.config.arch,
            activation=run.config.activation,
            num_classes=run.dataset.num_classes,
            in_channels=run.dataset.channels,
        ),
        run=run.directory.name,
        data_sha256=run.data_sha256,
        selection_sha256=run.selection_sha256,
        snapshots=snapshots,
        training=training,
    )


def has_state(run: Run) -> bool:
    """Tell whether there is a state to go on with, for all processes alike.

    Raises:
        AdrbenchError: where the processes do not see the same directory, or it is half of a run.

    """
    exists = (run.directory / checkpoints.LAST).exists()
    if not is_same(run.world, exists):
        raise not_shared(run)
    if not exists and run.world.is_first and (run.directory / checkpoints.BEST).exists():
        raise AdrbenchError(
            f"{run.directory} holds {checkpoints.BEST} but no {checkpoints.LAST} to go on from: "
            "bring it back, give another --name, or --force to start over."
        )
    return exists


def is_finished(directory: Path, config: TrainConfig) -> bool:
    """Tell, by its history, whether a run has all its epochs."""
    try:
        lines = (directory / HISTORY).read_bytes().count(b"\n")
    except OSError:
        return False
    return lines >= config.epochs and (directory / checkpoints.LAST).exists()


def not_shared(run: Run) -> AdrbenchError:
    """Return the error for processes that see different files."""
    return AdrbenchError(
        f"the processes see different states of {run.directory}: give --out on a file system that "
        "all machines share."
    )


def resume(run: Run) -> None:
    """Put `run` in the state that its directory holds, and make up for what a kill left out.

    Raises:
        AdrbenchError: when that state is of a run with another setting or other images.
        CheckpointError: when it is damaged or incomplete.

    """
    last = checkpoints.load(run.directory / checkpoints.LAST)
    check_same(run, last)
    try:
        put_back(run, last)
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the state in {run.directory} is incomplete ({first_line(error)}): "
            "give --force to start over."
        ) from error
    if not is_same(run.world, run.steps_done):
        raise not_shared(run)
    if run.world.is_first:
        take_up_best(run, last.snapshots)


def put_back(run: Run, last: Checkpoint) -> None:
    """Give models, optimizer and counts the values they have in a state."""
    for weights, model in run.models().items():
        model.load_state_dict(last.snapshots[weights].state)
    training = last.training or {}
    run.optimizer.load_state_dict(training["optimizer"])
    lay_out_momenta(run.optimizer)
    run.history[:] = training["history"]
    run.losses = Losses(run.steps_per_epoch, run.device, training.get("losses"))
    run.seconds = training.get("seconds", 0.0)
    run.sessions[:] = [from_json(Session, item) for item in training.get("sessions", ())]


def check_same(run: Run, last: Checkpoint) -> None:
    """Raise AdrbenchError unless a state is one of this run, naming what differs."""
    difference = last.config.difference(run.config)
    if difference:
        name, theirs, ours = difference
        raise AdrbenchError(
            f"{run.directory} holds a run with {flag(name)} {theirs}, not {ours}: give the same "
            "settings to go on, another --name for another run, or --force to start over."
        )
    for images, theirs, ours in (
        ("was trained", last.data_sha256, run.data_sha256),
        ("chose its best epoch", last.selection_sha256, run.selection_sha256),
    ):
        if theirs not in ("", ours):
            raise AdrbenchError(
                f"{run.directory} {images} on other images than {run.config.dataset} holds now "
                f"(SHA-256 {theirs[:8]}, not {ours[:8]}): bring the data back, or give --force to "
                "start over."
            )


def take_up_best(run: Run, last: Mapping[str, Snapshot]) -> None:
    """Read the best weights so far; `last` has them where the last epoch is the best."""
    path = run.directory / checkpoints.BEST
    if path.exists():
        run.best |= checkpoints.load(path).snapshots
    if run.history and not run.losses.recorded:
        publish(run, last)
    for weights in last if run.history else ():
        wanted = best_row(run.history, weights)["epoch"]
        if weights not in run.best or run.best[weights].epoch != wanted:
            raise CheckpointError(
                f"{path} does not hold the {weights} of epoch {wanted}, the best so far: bring it "
                "back, or give --force to start over."
            )


def lay_out_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Let momenta lie in memory as their parameters do: fused SGD on a CPU does not check it."""
    for parameter, state in optimizer.state.items():
        if "momentum_buffer" in state:
            momentum = torch.empty_like(parameter).copy_(state["momentum_buffer"])
            state["momentum_buffer"] = momentum


def remove(directory: Path) -> None:
    """Remove a run's files; the state last, so that it is what a killed process leaves of them."""
    for name in reversed(FILES):
        (directory / name).unlink(missing_ok=True)
