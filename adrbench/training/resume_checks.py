"""Checks that saved files belong to this run, and the errors if they do not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from adrbench.checkpoints.settings_file import read_settings_file
from adrbench.config.components import component_settings
from adrbench.config.declare import Setting
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, CheckpointError, argument
from adrbench.results.history import HistoryRow, read_history
from adrbench.runtime.files import (
    MAX_JSON_BYTES,
    UnreadableFileError,
    check_regular_file,
)
from adrbench.runtime.memory import total_memory
from adrbench.runtime.process_group import same_on_all_ranks
from adrbench.training.state import Run, TrainState, selection_images

#: How many settings that differ an error names.
MOST_NAMED = 3


def advise_restoring() -> str:
    """Return what to do about a file that is damaged or does not belong to its directory."""
    return f"restore the file, or give {argument('force', True)} to start over."


def check_same_inputs(run: Run) -> None:
    """Raise AdrbenchError unless all ranks have the same settings and images."""
    inputs = (run.config, run.data_sha256, run.selection_sha256)
    if not same_on_all_ranks(run.context.process_group, inputs):
        raise AdrbenchError(
            f"the processes have different settings or images of {run.config.dataset}: run "
            "the same command on the same files in all of them."
        )


def check_same_directory(run: Run, seen: object) -> None:
    """Raise AdrbenchError unless all ranks have `seen` the same files in the run's directory."""
    if not same_on_all_ranks(run.context.process_group, seen):
        raise AdrbenchError(
            f"the processes see different states of {run.directory}: give {argument('out')} on a "
            "file system that all machines share."
        )


def check_regular_files(directory: Path, names: Sequence[str]) -> None:
    """Raise AdrbenchError if a path of a run is not a regular file, or is one of no possible size.

    Directories, pipes and devices are not regular files.
    """
    for name in names:
        path = directory / name
        limit = total_memory() if path.suffix == ".pt" else MAX_JSON_BYTES
        try:
            check_regular_file(path, limit)
        except UnreadableFileError as error:
            what = str(error).removeprefix("it ")
            raise AdrbenchError(
                f"{path} {what}: move it away, or give another {argument('name')}."
            ) from error
        except OSError:  # it is missing, or reading it explains what is wrong
            continue


def check_same_run(run: Run, saved: Checkpoint) -> None:
    """Raise AdrbenchError unless `saved` is a checkpoint of this run, naming what differs."""
    differences = saved.config.differences(run.config)
    if differences:
        named = _name(differences, run.config, saved.config)
        raise AdrbenchError(
            f"{run.directory} contains a run {named}: give the same settings to resume it, "
            f"another {argument('name')} for another run, or {argument('force', True)} to start "
            "over."
        )
    for images, theirs, ours in (
        ("was trained", saved.data_sha256, run.data_sha256),
        ("chose its best epoch", saved.selection_sha256, run.selection_sha256),
    ):
        if theirs not in ("", ours):
            raise AdrbenchError(
                f"{run.directory} {images} on other images than those now in {run.config.dataset} "
                f"(SHA-256 {theirs[:8]}, not {ours[:8]}): restore the data, or give "
                f"{argument('force', True)} to "
                "start over."
            )


def check_same_origin(path: Path, saved: Checkpoint, last: Checkpoint) -> None:
    """Raise CheckpointError unless `saved`, read from `path`, is of the same run as `last`."""
    if not saved.is_of_same_run(last):
        differences = saved.config.differences(last.config)
        named = f" ({_name(differences, last.config, saved.config)})" if differences else ""
        raise CheckpointError(
            f"{path} and {checkpoints.LAST} belong to different runs{named}: {advise_restoring()}"
        )


def check_settings_file(path: Path, run_id: str, config: TrainConfig) -> None:
    """Raise CheckpointError if the settings at `path` are those of another run.

    A run is resumed with the settings in its state, so a damaged file is rewritten.
    """
    found = read_settings_file(path)
    if found is None:
        return
    settings, held_id = found
    if held_id not in ("", run_id) or settings.differences(config):
        raise CheckpointError(
            f"{path} and {checkpoints.LAST} belong to different runs: {advise_restoring()}"
        )


def check_history_file(path: Path, history: Sequence[HistoryRow]) -> None:
    """Raise CheckpointError if the rows at `path` contradict `history`.

    The rows of two runs differ at least in their seconds. Either may have fewer rows, after a kill
    or if an earlier state was restored. A damaged file is rewritten.
    """
    try:
        rows = read_history(path)
    except (OSError, ValueError, RecursionError):
        return
    if any(row != own for row, own in zip(rows, history, strict=False)):
        raise CheckpointError(
            f"{path} and {checkpoints.LAST} belong to different runs: {advise_restoring()}"
        )


def check_state(run: Run, state: TrainState, saved: Checkpoint) -> None:
    """Raise ValueError if a loaded state contradicts `run` or the header of its file."""
    num_images = len(selection_images(run.config, run.dataset))
    if len(state.history) > run.config.epochs:
        raise ValueError(f"its history has {len(state.history)} epochs of {run.config.epochs}")
    for row in state.history:
        if row.select_n != num_images or row.counts.keys() != state.models().keys():
            raise ValueError(f"the counts of epoch {row.epoch} are not those of its models")
    at_end = state.history[-1] if state.history and not state.is_within_epoch else None
    for weights in state.models():
        held = saved.snapshots[weights]
        counts = at_end.counts[weights] if at_end else None
        if (held.epoch, held.counts) != (state.epochs_done, counts) or held.steps not in (
            None,
            state.steps_done,
        ):
            raise ValueError(f"its {weights} weights are not those after {state.steps_done} steps")


def _name(differences: list[tuple[str, Any, Any]], config: TrainConfig, saved: TrainConfig) -> str:
    """Return settings that differ, as "with --lr 0.1, not 0.2"; of two methods, without theirs."""
    if any(name == "method" for name, _, _ in differences):  # its settings differ with it
        own = {*component_settings(), *saved.method_settings, *config.method_settings}
        own |= saved.parsed_method().implied.keys()
        own |= config.parsed_method().implied.keys()
        differences = [found for found in differences if found[0] not in own]
    declared = saved.declared()
    shown = [_spell(name, declared.get(name), a, b) for name, a, b in differences[:MOST_NAMED]]
    named = " and ".join([*shown, *(["more"] if len(differences) > len(shown) else [])])
    return named if named.startswith("without ") else f"with {named}"


def _spell(name: str, declared: Setting | None, theirs: Any, ours: Any) -> str:
    """Return two values of a setting as written on the command line."""
    if declared is None:
        return f"{argument(name, theirs)}, not {ours}"
    if isinstance(theirs, bool) or theirs is None or ours is None:
        return f"{declared.spell(theirs)}, not {declared.spell(ours)}"
    return f"{declared.spell(theirs)}, not {declared.spell_value(ours)}"


def load_own_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of the run that is to be resumed.

    Raises:
        CheckpointError: when it cannot be read.

    """
    try:
        return checkpoints.load(path)
    except CheckpointError as error:
        what = str(error).partition(": copy or train")[0].rstrip(".")
        raise CheckpointError(f"{what}: {advise_restoring()}") from error
