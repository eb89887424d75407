"""A run's directory: what is saved in it, when, and how an interrupted run is restored.

`last.pt` is the state of the run, at the end of an epoch or within one. `best.pt` and the history
are derived from it and written after it; if a process was killed in between, they are completed
when the run is restored. Before anything is written, all files are checked to belong to one run.
Rank 0 writes; the other ranks have the same state.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, ModelShape, Snapshot
from adrbench.checkpoints.settings_file import CONFIG, RUN_ID, read_settings_file
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, CheckpointError, LostProcessError, argument, first_line
from adrbench.registry import describe_plugins
from adrbench.results.best_epoch import best_row
from adrbench.results.records import count_processes
from adrbench.runtime.files import MAX_JSON_BYTES, read_limited, write_atomically
from adrbench.runtime.process_group import check_on_rank_zero
from adrbench.runtime.signals import Interrupted
from adrbench.training.divergence import check_finite
from adrbench.training.resume_checks import (
    advise_restoring,
    check_history_file,
    check_same_directory,
    check_same_origin,
    check_same_run,
    check_settings_file,
    check_state,
    load_own_checkpoint,
)
from adrbench.training.state import Run, TrainState, run_label

HISTORY, LOCK = "history.jsonl", ".lock"
FILES = (checkpoints.LAST, checkpoints.BEST, HISTORY, CONFIG)

#: What a rank asks for after a step: one of these, or STOP plus the number of the signal that it
#: received. The largest request of all ranks is carried out.
CONTINUE, SAVE, STOP, ABORT = 0, 1, 2, 1000


def is_finished(directory: Path, config: TrainConfig) -> bool:
    """Return whether a run has all its epochs, according to its history alone."""
    try:
        lines = read_limited(directory / HISTORY, MAX_JSON_BYTES).count(b"\n")
    except OSError:
        return False
    return lines >= config.epochs and (directory / checkpoints.LAST).exists()


def read_settings(directory: Path) -> TrainConfig | None:
    """Return the settings of the run in a directory; None if it contains none that is readable."""
    if not (directory / checkpoints.LAST).is_file():
        return None
    if found := read_settings_file(directory / CONFIG):
        return found[0]
    try:  # the state has the settings, too
        return checkpoints.load(directory / checkpoints.LAST).config
    except CheckpointError:
        return None


class Checkpointer:
    """Saves and restores the state of `run`, within an epoch every `save_seconds`."""

    def __init__(self, run: Run, *, save_seconds: float) -> None:
        self.run = run
        self.save_seconds = save_seconds
        self.saved_at = time.monotonic()
        #: What `best.pt` holds, on rank 0: the weights of the best epoch so far, by name.
        self.best: dict[str, Snapshot] = {}

    def remove(self) -> None:
        """Remove the run's files, the state last, so a killed run stays identifiable."""
        for name in reversed(FILES):
            (self.run.directory / name).unlink(missing_ok=True)

    def write_config(self, state: TrainState) -> None:
        """Write the run's settings, with the path of its data (see `settings_file`)."""
        if self.run.context.process_group.is_rank_zero:
            content = {**self.run.config.to_json(), RUN_ID: state.run_id}
            path = self.run.directory / CONFIG
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())

    # Restoring

    def restore(self, state: TrainState) -> None:
        """Load the saved state into `state`, if there is one; write nothing.

        Raises:
            AdrbenchError: when the saved state belongs to a run with other settings or images, or
                the ranks see different files.
            CheckpointError: when it is damaged, incomplete, or not all files are of one run.

        """
        process_group = self.run.context.process_group
        if not self._has_state():
            state.run_id = process_group.broadcast(secrets.token_hex(8))
            return
        last = load_own_checkpoint(self.run.directory / checkpoints.LAST)
        check_same_run(self.run, last)
        state.run_id = last.run_id
        models = {weights: snapshot.state for weights, snapshot in last.snapshots.items()}
        try:
            state.load_state_dict({"models": models, **(last.training or {})})
            check_state(self.run, state, last)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the state in {self.run.directory} is incomplete ({first_line(error)}): "
                f"give {argument('force', True)} to start over."
            ) from error
        check_same_directory(self.run, (state.run_id, state.steps_done))
        check_on_rank_zero(process_group, partial(self._read_other_files, state, last))

    def complete(self, state: TrainState) -> None:
        """On rank 0, write files derived from a restored state that are missing after a kill."""
        is_at_end = state.epochs_done > 0 and not state.is_within_epoch
        if self.run.context.process_group.is_rank_zero and is_at_end:
            self._write_best_and_history(state, take_snapshots(state))

    def _has_state(self) -> bool:
        """Return whether there is a saved state; AdrbenchError if only derived files exist."""
        directory = self.run.directory
        found = [name for name in FILES if (directory / name).exists()]
        check_same_directory(self.run, found)
        followers = [name for name in found if name in (checkpoints.BEST, HISTORY)]
        if checkpoints.LAST not in found and followers:
            raise AdrbenchError(
                f"{directory} contains {followers[0]} but no {checkpoints.LAST} to resume from: "
                f"restore that file, give another {argument('name')}, or "
                f"{argument('force', True)} to start over."
            )
        return checkpoints.LAST in found

    def _read_other_files(self, state: TrainState, last: Checkpoint) -> None:
        """Check that all other files belong to the restored state, and keep the best weights."""
        self._read_best(state, last)
        check_settings_file(self.run.directory / CONFIG, state.run_id, self.run.config)
        check_history_file(self.run.directory / HISTORY, state.history)

    def _read_best(self, state: TrainState, last: Checkpoint) -> None:
        """Read the best weights so far, and check that they are those of the run's history.

        If the state itself is the best, a kill may have prevented them from being written.
        """
        path = self.run.directory / checkpoints.BEST
        if path.exists():
            best = load_own_checkpoint(path)
            check_same_origin(path, best, last)
            self.best = dict(best.snapshots)
        for weights in state.models() if state.history else ():
            row = best_row(state.history, weights)
            held = self.best.get(weights)
            is_state = row.epoch == state.epochs_done and not state.is_within_epoch
            if is_state and (held is None or held.epoch != row.epoch):
                continue
            if (
                held is None
                or (held.epoch, held.counts) != (row.epoch, row.counts[weights])
                or (is_state and not _have_same_weights(held, last.snapshots[weights]))
            ):
                raise CheckpointError(
                    f"{path} does not contain the {weights} of epoch {row.epoch}, the best so far: "
                    f"{advise_restoring()}"
                )

    # Saving

    def after_step(self, state: TrainState) -> None:
        """Save if a save is due, and stop if a stop was requested, on all ranks together.

        Raises:
            Interrupted: once the state is saved.
            AdrbenchError: instead of saving a state that is not finite.

        """
        is_due = time.monotonic() - self.saved_at >= self.save_seconds
        number = self.run.context.stop.number
        request = STOP + number if number else SAVE if is_due else CONTINUE
        if state.losses.not_finite:
            request = ABORT
        request = self.run.context.process_group.all_reduce_max(request)
        if request == CONTINUE:
            return
        check_finite(self.run, state)
        self.save(state)
        if request > STOP:
            self._interrupt(state, request - STOP)

    def after_epoch(self, state: TrainState) -> None:
        """Save, and stop if a stop was requested and epochs remain, on all ranks together.

        Raises:
            Interrupted: once the state is saved.

        """
        self.save(state)
        number = self.run.context.process_group.all_reduce_max(self.run.context.stop.number or 0)
        if number and state.epochs_done < self.run.config.epochs:
            self._interrupt(state, number)

    @contextmanager
    def saved_if_interrupted(self, state: TrainState) -> Iterator[None]:
        """Save and stop at once if a stop is requested during the validation of an epoch.

        Raises:
            Interrupted: once the state is saved.

        """
        try:
            with self.run.context.stop.immediate():
                yield
        except LostProcessError:
            self.save(state)
            raise
        except Interrupted as interruption:
            self.save(state)
            where = f"at {self._name_epoch(state.epochs_done + 1)}, before its validation; saved"
            raise Interrupted(interruption.number, where) from None

    def save(self, state: TrainState) -> None:
        """Write the state, then the files derived from it, on rank 0."""
        if self.run.context.process_group.is_rank_zero:
            training = state.state_dict()
            del training["models"]
            snapshots = take_snapshots(state)
            self._write(checkpoints.LAST, self._describe(state, "last", snapshots, training))
            if state.history and not state.is_within_epoch:
                self._write_best_and_history(state, snapshots)
        self.saved_at = time.monotonic()

    def _interrupt(self, state: TrainState, number: int) -> None:
        """Raise Interrupted, when rank 0 has saved the state."""
        # A rank that has passed the barrier may have exited, and reset the connection, before
        # another has read its last message.
        with contextlib.suppress(LostProcessError):
            self.run.context.process_group.barrier()
        if state.is_within_epoch:
            steps = f"{state.losses.recorded} of {self.run.steps_per_epoch} steps"
            where = f"at {self._name_epoch(state.epochs_done + 1)}, after {steps}"
        else:
            where = f"after {self._name_epoch(state.epochs_done)}"
        raise Interrupted(number, f"{where}; saved")

    def _name_epoch(self, epoch: int) -> str:
        return f"epoch {epoch} of {self.run.config.epochs}"

    def _write_best_and_history(self, state: TrainState, last: Mapping[str, Snapshot]) -> None:
        """Write `best.pt` and the history unless they already match the state.

        `last` are the weights of the state, which is at the end of an epoch.
        """
        better: dict[str, Snapshot] = {
            weights: last[weights]
            for weights in state.models()
            if best_row(state.history, weights).epoch == state.epochs_done
            and (weights not in self.best or self.best[weights].epoch != state.epochs_done)
        }
        if better:
            self.best |= better
            self._write(checkpoints.BEST, self._describe(state, "best", self.best, None))
        path = self.run.directory / HISTORY
        lines = "".join(json.dumps(row.to_json()) + "\n" for row in state.history).encode()
        if not path.exists() or read_limited(path, MAX_JSON_BYTES) != lines:
            write_atomically(path, lines)

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        checkpoints.save(self.run.directory / name, checkpoint)

    def _describe(
        self,
        state: TrainState,
        selection: checkpoints.Selection,
        snapshots: dict[str, Snapshot],
        training: dict[str, Any] | None,
    ) -> Checkpoint:
        """Return the content of a checkpoint file of this run."""
        config, dataset = self.run.config, self.run.dataset
        return Checkpoint(
            selection=selection,
            config=config,
            shape=ModelShape(
                num_classes=dataset.num_classes,
                in_channels=dataset.channels,
                image_size=self.run.image_size,
            ),
            run=self.run.directory.name,
            run_id=state.run_id,
            data_sha256=self.run.data_sha256,
            selection_sha256=self.run.selection_sha256,
            training_images_sha256=dataset.training_images_sha256,
            label=run_label(self.run),
            plugins={
                **self.run.architecture.plugins,
                **describe_plugins({"datasets": [config.dataset]}),
            },
            snapshots=snapshots,
            processes=count_processes(state.sessions),
            training=training,
        )


def take_snapshots(state: TrainState) -> dict[str, Snapshot]:
    """Return copies of the weights on the CPU, with their counts at the end of an epoch."""
    row = state.history[-1] if state.history and not state.is_within_epoch else None
    return {
        weights: Snapshot(
            state={
                key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for key, value in model.state_dict().items()
            },
            epoch=state.epochs_done,
            counts=row.counts[weights] if row else None,
            steps=state.steps_done,
        )
        for weights, model in state.models().items()
    }


def _have_same_weights(one: Snapshot, other: Snapshot) -> bool:
    """Return whether two snapshots are bitwise the same weights."""
    return one.state.keys() == other.state.keys() and all(
        torch.equal(value, other.state[key]) for key, value in one.state.items()
    )
