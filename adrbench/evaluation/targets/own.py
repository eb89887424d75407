"""Targets from checkpoints that `adrbench train` wrote."""

from pathlib import Path

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from adrbench.checkpoints.restore import can_be_named, needs_arch, restore
from adrbench.checkpoints.settings_file import find_dataset
from adrbench.config.method import WEIGHTS, Weights
from adrbench.errors import CheckpointError, argument
from adrbench.evaluation.plausibility import Accuracy
from adrbench.evaluation.targets.target import TargetModel, TargetOptions, Training
from adrbench.printable import get_logger
from adrbench.results.best_epoch import best_row
from adrbench.results.history import HistoryRow
from adrbench.runtime.hashing import hash_file

logger = get_logger(__name__)

#: Options that a checkpoint of ours replaces, where it does not need its architecture again.
OWN = ("arch", "activation", "normalize")


def find_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints of a run directory, best before last.

    Raises:
        CheckpointError: when there is none.

    """
    files = [directory / name for name in (checkpoints.BEST, checkpoints.LAST)]
    found = [file for file in files if file.exists()]
    if not found:
        raise CheckpointError(
            f"{directory} contains no {checkpoints.BEST} or {checkpoints.LAST}: "
            "give the directory of a run, as `adrbench train` printed it."
        )
    return found


def load_directory(directory: Path, options: TargetOptions) -> list[TargetModel]:
    """Return the targets in the checkpoints of a run directory.

    Raises:
        CheckpointError: when there is none, or they are not all of one run.

    """
    loaded = {path: checkpoints.load(path) for path in find_checkpoints(directory)}
    (first_path, first), *others = loaded.items()
    for path, checkpoint in others:
        if not checkpoint.is_of_same_run(first):
            raise CheckpointError(
                f"{directory} contains files of two runs, {first_path.name} of {first.run} (seed "
                f"{first.config.seed}) and {path.name} of {checkpoint.run} (seed "
                f"{checkpoint.config.seed}): restore the right file, or name one of the two."
            )
        check_best(directory, best=first, last=checkpoint)
    return [
        target
        for path, checkpoint in loaded.items()
        for target in load_targets(
            path, checkpoint, options, last=loaded.get(directory / checkpoints.LAST)
        )
    ]


def check_best(directory: Path, *, best: Checkpoint, last: Checkpoint) -> None:
    """Raise CheckpointError unless `best` contains the best epochs of the history in `last`."""
    try:
        rows = [HistoryRow.from_json(row) for row in (last.training or {}).get("history", ())]
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"the history in {directory / checkpoints.LAST} is damaged ({error}): copy or train it "
            "again."
        ) from error
    for weights in WEIGHTS:
        held = best.snapshots.get(weights)
        epoch = best_row(rows, weights).epoch if rows and held else None
        if held and epoch not in (None, held.epoch):
            raise CheckpointError(
                f"{directory / checkpoints.BEST} contains the {weights} weights of epoch "
                f"{held.epoch}, but the best epoch so far is {epoch}: run the same "
                "`adrbench train` command again to complete the run, or name one of the two files."
            )


def load_targets(
    path: Path, checkpoint: Checkpoint, options: TargetOptions, *, last: Checkpoint | None = None
) -> list[TargetModel]:
    """Return the sets of weights in `checkpoint`, read from `path`, that `options` select.

    `last` is the last checkpoint of the run; by default, it is searched for next to `path`.

    Raises:
        CheckpointError: when the checkpoint lacks the weights that `options` select.
        DataError: when the data set it was trained on does not exist.

    """
    names = ("activation", "normalize") if needs_arch(checkpoint) else OWN
    options.warn_of_ignored(names, f"{path} specifies its own")
    unfinished = describe_unfinished(last or _find_last(path, checkpoint))
    targets = [
        _load_target(path, checkpoint, weights, options, unfinished)
        for weights in _select_weights(checkpoint, options)
    ]
    if unfinished:
        logger.warning(f"{checkpoint.run} is {unfinished}: its current weights are attacked.")
    return targets


def describe_unfinished(last: Checkpoint | None) -> str:
    """Return how far an unfinished run has progressed; "" for a finished one."""
    if last is None:
        return ""
    epochs = last.config.epochs
    done = min(snapshot.epoch for snapshot in last.snapshots.values())
    steps = " and some steps" if _is_within_epoch(last) else ""
    return f"unfinished, after {done} of {epochs} epochs{steps}" if done < epochs else ""


def _find_last(path: Path, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the last checkpoint of the run, None if it is not next to `path`."""
    if checkpoint.selection == "last":
        return checkpoint
    try:
        found = checkpoints.load(path.with_name(checkpoints.LAST))
    except CheckpointError:
        return None
    return found if found.is_of_same_run(checkpoint) else None


def _select_weights(checkpoint: Checkpoint, options: TargetOptions) -> tuple[Weights, ...]:
    if options.weights == "both":
        return tuple(weights for weights in WEIGHTS if weights in checkpoint.snapshots)
    if options.weights is None:
        return (checkpoint.config.parsed_method().deployed,)
    return tuple(weights for weights in WEIGHTS if weights == options.weights)


def _is_within_epoch(checkpoint: Checkpoint) -> bool:
    """Return whether the weights were saved some steps after the end of their epoch."""
    return any(snapshot.counts is None for snapshot in checkpoint.snapshots.values())


def _load_target(
    path: Path,
    checkpoint: Checkpoint,
    weights: Weights,
    options: TargetOptions,
    unfinished: str,
) -> TargetModel:
    config = checkpoint.config
    threat_model = options.threat_model(config.threat_model())
    model = restore(checkpoint, weights, path, arch=options.arch, advice=advise_arch(config.arch))
    return TargetModel(
        dataset=options.dataset or find_dataset(path, checkpoint),
        arch=config.arch,
        activation=config.activation,
        run=checkpoint.run,
        checkpoint_sha256=hash_file(path),
        threat_model=threat_model,
        model=model,
        training=Training(
            method=config.method,
            weights=weights,
            selection=checkpoint.selection,
            selected_on=config.select,
            epoch=checkpoint.snapshots[weights].epoch,
            seed=config.seed,
            settings_sha256=config.sha256(checkpoint.processes),
            images_sha256=checkpoint.training_images_sha256,
            label=checkpoint.label,
            validated=_validated(checkpoint, weights),
            averaged_steps=checkpoint.snapshots[weights].steps if weights == "average" else None,
            decay=config.averaging_decay(),
            unfinished=unfinished,
        ),
    )


def advise_arch(arch: str) -> str:
    """Return how to specify the architecture of a checkpoint that requires it."""
    if can_be_named(arch):
        return f"give {argument('arch', arch)} again."
    return f"give the import path of its class or function with {argument('arch')}."


def _validated(checkpoint: Checkpoint, weights: Weights) -> Accuracy | None:
    """Return the clean validation accuracy, None if unknown.

    A checkpoint stores the number of validation images, but not that of the test images used with
    --select test.
    """
    config, counts = checkpoint.config, checkpoint.snapshots[weights].counts
    if counts is None or config.select != "val" or not config.val_size:
        return None
    return Accuracy(correct=counts.clean_correct, n=config.val_size)
