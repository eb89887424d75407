"""Taking up a run where its directory says it stands, and making sure that it is that run."""

from collections.abc import Mapping
from pathlib import Path

import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, Snapshot
from adrbench.config.declare import flag
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, CheckpointError, RecordError, first_line
from adrbench.results.records import Session, TrainRecord, read_record, write_record
from adrbench.runtime.cuda_graphs import LossBuffer
from adrbench.runtime.process_group import same_on_all_ranks
from adrbench.runtime.typed_json import from_json
from adrbench.training.saving import FILES, HISTORY, best_row, publish
from adrbench.training.state import Run

#: How many settings that differ are named.
MOST_NAMED = 3


def has_state(run: Run) -> bool:
    """Tell whether there is a state to go on with, for all processes alike.

    Raises:
        AdrbenchError: where the processes do not see the same directory, or it is half of a run.

    """
    exists = (run.directory / checkpoints.LAST).exists()
    if not same_on_all_ranks(run.process_group, exists):
        raise not_shared(run)
    if (
        not exists
        and run.process_group.is_rank_zero
        and (run.directory / checkpoints.BEST).exists()
    ):
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
    last = load_own(run.directory / checkpoints.LAST)
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
    if not same_on_all_ranks(run.process_group, run.steps_done):
        raise not_shared(run)
    if run.process_group.is_rank_zero:
        take_up_best(run, last.snapshots)


def load_own(path: Path) -> Checkpoint:
    """Read a checkpoint of the run itself; CheckpointError says what one can do."""
    try:
        return checkpoints.load(path)
    except CheckpointError as error:
        what = str(error).partition(": copy or train")[0].rstrip(".")
        raise CheckpointError(f"{what}: bring it back, or give --force to start over.") from error


def put_back(run: Run, last: Checkpoint) -> None:
    """Give models, optimizer and counts the values they have in a state."""
    for weights, model in run.models().items():
        model.load_state_dict(last.snapshots[weights].state)
    training = last.training or {}
    run.optimizer.load_state_dict(training["optimizer"])
    lay_out_momenta(run.optimizer)
    run.history[:] = training["history"]
    run.losses = LossBuffer(run.steps_per_epoch, run.device, training.get("losses"))
    run.seconds = training.get("seconds", 0.0)
    run.sessions[:] = [from_json(Session, item) for item in training.get("sessions", ())]


def check_same(run: Run, last: Checkpoint) -> None:
    """Raise AdrbenchError unless a state is one of this run, naming what differs."""
    differences = last.config.differences(run.config)
    if differences:
        shown = [f"{flag(name)} {a}, not {b}" for name, a, b in differences[:MOST_NAMED]]
        named = " and ".join([*shown, *(["more"] if len(differences) > len(shown) else [])])
        raise AdrbenchError(
            f"{run.directory} holds a run with {named}: give the same settings to go on, another "
            "--name for another run, or --force to start over."
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
        run.best |= load_own(path).snapshots
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


def keep_record(path: Path, made: TrainRecord) -> None:
    """Write a record, unless the file holds it already; RecordError where it is another run's."""
    if path.exists():
        held = read_own_record(path, TrainConfig.from_json(made.config))
        if (held.history, held.sessions) == (made.history, made.sessions):
            return
    write_record(path, made)


def read_own_record(path: Path, config: TrainConfig) -> TrainRecord:
    """Read the record of a run; RecordError where it is broken or that of another one."""
    record = read_record(path)
    try:
        theirs = TrainConfig.from_json(record.config) if isinstance(record, TrainRecord) else None
    except ValueError as error:
        raise RecordError(f"the configuration in {path} is damaged ({error}).") from error
    if not isinstance(record, TrainRecord) or theirs is None or theirs.differences(config):
        raise RecordError(
            f"{path} is the record of another run: give another --name or --results, or --force "
            "to replace it."
        )
    return record
