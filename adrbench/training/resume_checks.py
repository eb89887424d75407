"""Whether saved files belong to this run, and the errors where they do not."""

from pathlib import Path
from typing import Any

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from adrbench.config.components import component_settings
from adrbench.config.declare import flag
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.errors import AdrbenchError, CheckpointError, RecordError
from adrbench.results.records import TrainRecord, read_record
from adrbench.runtime.process_group import same_on_all_ranks
from adrbench.training.state import Run

#: How many settings that differ an error names.
MOST_NAMED = 3


def check_same_inputs(run: Run) -> None:
    """Raise AdrbenchError unless all ranks have the same settings and images."""
    inputs = (run.config, run.data_sha256, run.selection_sha256)
    if not same_on_all_ranks(run.context.process_group, inputs):
        raise AdrbenchError(
            f"the processes have different settings or images of {run.config.dataset}: give all "
            "the same command and the same files."
        )


def check_same_directory(run: Run, seen: object) -> None:
    """Raise AdrbenchError unless all ranks have `seen` the same in the run's directory."""
    if not same_on_all_ranks(run.context.process_group, seen):
        raise AdrbenchError(
            f"the processes see different states of {run.directory}: give --out on a file system "
            "that all machines share."
        )


def check_same_run(run: Run, saved: Checkpoint) -> None:
    """Raise AdrbenchError unless `saved` is a checkpoint of this run, naming what differs."""
    differences = saved.config.differences(run.config)
    if differences:
        if any(name == "method" for name, _, _ in differences):  # its settings differ with it
            own = {*component_settings(), *saved.config.parsed_method().implied}
            own |= run.config.parsed_method().implied.keys()
            differences = [found for found in differences if found[0] not in own]
        shown = [_spell(name, a, b) for name, a, b in differences[:MOST_NAMED]]
        named = " and ".join([*shown, *(["more"] if len(differences) > len(shown) else [])])
        raise AdrbenchError(
            f"{run.directory} holds a run with {named}: give the same settings to resume it, "
            "another --name for another run, or --force to start over."
        )
    for images, theirs, ours in (
        ("was trained", saved.data_sha256, run.data_sha256),
        ("chose its best epoch", saved.selection_sha256, run.selection_sha256),
    ):
        if theirs not in ("", ours):
            raise AdrbenchError(
                f"{run.directory} {images} on other images than {run.config.dataset} holds now "
                f"(SHA-256 {theirs[:8]}, not {ours[:8]}): restore the data, or give --force to "
                "start over."
            )


def _spell(name: str, theirs: Any, ours: Any) -> str:
    """Return two values of a setting as the command line spells them."""
    declared = train_settings().get(name)
    if declared is None:
        return f"{flag(name)} {theirs}, not {ours}"
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
        raise CheckpointError(
            f"{what}: restore the file, or give --force to start over."
        ) from error


def read_own_record(path: Path, config: TrainConfig) -> TrainRecord:
    """Read the record of the run of `config`.

    Raises:
        RecordError: where it is broken or that of another run.

    """
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
