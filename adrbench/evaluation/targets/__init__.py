"""Targets: from the name a user gives to the models to evaluate.

There is one module per kind of target. Checks that do not need to read or download anything are
made first.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.safetensors_files import is_safetensors_file, read_safetensors_file
from adrbench.checkpoints.torch_files import describe_unread, read_torch_file
from adrbench.errors import CheckpointError, abbreviate, argument
from adrbench.evaluation.targets import module, own, third_party, timm, zoo
from adrbench.evaluation.targets.target import TargetModel, TargetOptions, Training
from adrbench.printable import get_logger
from adrbench.registry import is_import_path
from adrbench.runtime.files import to_path

__all__ = ["TargetModel", "TargetOptions", "Training", "resolve_targets"]

logger = get_logger(__name__)

#: Prefix of a target that is not a path -> what loads it, given the whole target.
PREFIXES: dict[str, Callable[[str, TargetOptions], TargetModel]] = {
    zoo.PREFIX: zoo.load_target,
    timm.PREFIX: timm.load_target,
}


def resolve_targets(target: str, options: TargetOptions) -> list[TargetModel]:
    """Return the models that `target` names; log what is assumed or ignored.

    Raises:
        UsageError: when a necessary option is missing.
        CheckpointError: when a file cannot be read or does not fit its model.
        ImportPathError: when code that the target names cannot be imported, or raises.

    """
    found = _find_models(target, options)
    if options.name is None:
        return found
    if any(target_model.training.is_known for target_model in found):
        options.warn_of_ignored(("name",), f"{target} specifies its own")
        return found
    return [replace(target_model, run=options.name) for target_model in found]


def _find_models(target: str, options: TargetOptions) -> list[TargetModel]:
    for prefix, load in PREFIXES.items():
        if target.startswith(prefix):
            return [load(target, options)]
    path = to_path(target, "target")
    if not path.exists():
        if is_import_path(target):
            return [module.load_target(target, options)]
        known = ", ".join(f"{prefix}NAME" for prefix in PREFIXES)
        raise CheckpointError(
            f"{target} does not exist: give a run directory, a checkpoint, {known}, or "
            "package.module:attribute."
        )
    return own.load_directory(path, options) if path.is_dir() else _load_file(path, options)


def _load_file(path: Path, options: TargetOptions) -> list[TargetModel]:
    if is_safetensors_file(path):
        return [third_party.load_target(path, read_safetensors_file(path), options)]
    file = read_torch_file(path)
    if file.kind:
        raise CheckpointError(
            f"{path} is a pickled object, {abbreviate(file.kind)}, which cannot be read without "
            "running code: save its weights with torch.save(model.state_dict(), FILE), and give "
            f"FILE with {argument('arch')}."
        )
    if checkpoints.is_ours(file.content):
        return own.load_targets(path, checkpoints.parse(file, path), options)
    if file.unread:
        logger.warning(
            f"{path} also contains objects, which were not read: {describe_unread(file.unread)}."
        )
    return [third_party.load_target(path, file.content, options)]
