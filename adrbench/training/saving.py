"""A run's directory: what is saved, and when.

`last.pt` is the state of the run, at the end of an epoch or anywhere within. `best.pt` and the
history follow from it and are written after it, so what a killed process left out of them is made
up for when the run is resumed. Rank 0 writes; the other ranks have the same state.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, ModelShape, Snapshot
from adrbench.errors import AdrbenchError
from adrbench.runtime.files import write_atomically
from adrbench.runtime.signals import SIGNALS, Interrupted, StopRequest
from adrbench.runtime.typed_json import to_json
from adrbench.training.state import HistoryRow, Run, run_label

CONFIG, HISTORY, LOCK = "config.json", "history.jsonl", ".lock"
FILES = (checkpoints.LAST, checkpoints.BEST, HISTORY, CONFIG)

#: What a process wants after a step, or the number of the signal it got. The largest wish of all
#: processes is done.
GO_ON, SAVE, GIVE_UP = 0, 1, 1000
assert all(SAVE < number < GIVE_UP for number in SIGNALS)


class Saver:
    """Saves a run after a step where that is due, and leaves it there when `stop` was asked for."""

    def __init__(self, run: Run, every_seconds: float, stop: StopRequest) -> None:
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
        wish = self.run.process_group.all_reduce_max(
            GIVE_UP if self.run.losses.not_finite else wish
        )
        if wish == GO_ON:
            return
        check_finite(self.run)
        self.save()
        if wish > SAVE:
            self.leave(wish)

    def after_epoch(self) -> None:
        """Save, and stop where that was asked for meanwhile and work is left, likewise."""
        self.save()
        wish = self.run.process_group.all_reduce_max(self.stop.number or GO_ON)
        if wish and not self.run.finished:
            self.leave(wish)

    def save(self) -> None:
        """Save now."""
        save(self.run)
        self.saved_at = time.monotonic()

    def leave(self, number: int) -> None:
        """Raise Interrupted, when the process that saves has done so."""
        run = self.run
        run.process_group.barrier()
        step, epoch = run.losses.recorded, run.epochs_done
        where = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
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
    """Write the state, then what follows from it, on rank 0."""
    if not run.process_group.is_rank_zero:
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
        training_images_sha256=run.dataset.training_images_sha256,
        label=run_label(run),
        snapshots=snapshots,
        processes=max((session.processes for session in run.sessions), default=1),
        training=training,
    )
