"""Building the model of a checkpoint.

The code of a network is imported only if a user or an installed plugin names it, never because a
file does.
"""

from pathlib import Path

from torch import nn

from adrbench.checkpoints.format import BEST, Checkpoint, load
from adrbench.checkpoints.state_dicts import check_values
from adrbench.config.method import WEIGHTS, Weights
from adrbench.errors import CheckpointError, UsageError
from adrbench.models.architectures import (
    Architecture,
    build_model,
    canonical_arch,
    find_architecture,
    is_imported,
)
from adrbench.models.foreign import Builder
from adrbench.printable import get_logger
from adrbench.registry import UserCodeError, find_plugin, is_import_path
from adrbench.runtime.files import to_path

logger = get_logger(__name__)


def load_model(
    path: str | Path, weights: Weights | None = None, arch: str | Builder | None = None
) -> nn.Module:
    """Return a trained model in eval mode on the CPU, for images (N, C, H, W) in [0, 1].

    `path` is a checkpoint, or a run directory, of which the best checkpoint is loaded. `weights`
    is "student" or "average", or None for the weights that the method deploys. `arch` is required
    for a model defined in your own code, which is never imported because of a file: pass the import
    path or the callable `(num_classes, in_channels) -> nn.Module` that it was trained with.

    Raises:
        CheckpointError: when the file cannot be read or does not fit its model, or `arch` is
            needed.
        ImportPathError: when the code that `arch` or a plugin names cannot be imported, or raises.

    Example:
        >>> from adrbench import load_model
        >>> model = load_model("checkpoints/digits-small-cnn-at-seed0")  # doctest: +SKIP

    """
    path = to_path(path, "path")
    if path.is_dir():
        path = path / BEST
    checkpoint = load(path)
    if arch is not None and not needs_arch(checkpoint):
        logger.warning(f"arch is ignored: {path} specifies its own.")
    return restore(
        checkpoint,
        weights or checkpoint.config.parsed_method().deployed,
        path,
        arch=arch,
        advice=f"pass arch={checkpoint.config.arch!r}, or the callable itself.",
    )


def restore(
    checkpoint: Checkpoint,
    weights: str,
    path: Path | str,
    *,
    arch: str | Builder | None = None,
    advice: str = "name it again.",
) -> nn.Module:
    """Build the model of `checkpoint` with its `weights`, in eval mode on the CPU.

    `arch` is the architecture, if the checkpoint requires it; `advice` is how to specify it.

    Raises:
        UsageError: for weights other than student or average.
        CheckpointError: when those weights are not in the file, or do not fit the model, or its
            architecture is not given or not installed.
        ImportPathError: when the architecture cannot be imported, or raises.

    """
    if weights not in WEIGHTS:
        raise UsageError(f"weights are {weights!r}: choose {' or '.join(WEIGHTS)}.")
    if weights not in checkpoint.snapshots:
        held = " and ".join(checkpoint.snapshots)
        raise CheckpointError(
            f"{path} has no {weights} weights, since its method is "
            f"{checkpoint.config.method!r}: choose {held}."
        )
    state = checkpoint.snapshots[weights].state
    try:
        model = build_model(
            _find_architecture(checkpoint, path, arch, advice),
            num_classes=checkpoint.shape.num_classes,
            in_channels=checkpoint.shape.in_channels,
            activation=checkpoint.config.activation,
            image_size=checkpoint.shape.image_size,
        )
        check_values(state, model.state_dict())
        model.load_state_dict(state, strict=True)
    except (CheckpointError, UserCodeError):
        raise
    except Exception as error:  # a user's network may replace how it loads its state
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise CheckpointError(
            f"the {weights} weights in {path} do not fit the architecture that "
            f"it specifies, {checkpoint.config.arch} ({reason}): copy or train it again."
        ) from error
    return model.eval()


def needs_arch(checkpoint: Checkpoint) -> bool:
    """Return whether the model is built by code that is imported only if the user names it."""
    return is_imported(checkpoint.config.arch)


def can_be_named(arch: str) -> bool:
    """Return whether `arch`, defined in user code, is an import path that can be passed again.

    A callable that was defined in a script or within a function has none.
    """
    return is_import_path(arch) and not arch.startswith("__main__:")


def _find_architecture(
    checkpoint: Checkpoint, path: Path | str, arch: str | Builder | None, advice: str
) -> Architecture:
    """Return the architecture of a checkpoint; `arch` if its code must be named by the user."""
    stored = checkpoint.config.arch
    if not needs_arch(checkpoint):
        _check_plugin(checkpoint, path)
        return find_architecture(stored)
    if arch is None:
        raise CheckpointError(
            f"{path} was trained with the architecture {stored}, which is code that is not "
            f"imported unless you name it: {advice}"
        )
    if isinstance(arch, str) and can_be_named(stored) and canonical_arch(arch) != stored:
        raise CheckpointError(
            f"{path} was trained with the architecture {stored}, not {arch}: {advice}"
        )
    return find_architecture(arch)


def _check_plugin(checkpoint: Checkpoint, path: Path | str) -> None:
    """Raise CheckpointError where the plugin that a checkpoint was trained with is missing."""
    arch = checkpoint.config.arch
    trained_with = checkpoint.plugins.get(f"architectures:{arch}")
    if trained_with is None:
        return
    plugin = find_plugin("architectures", arch)
    if plugin is None:
        raise CheckpointError(
            f"{path} was trained with the architecture {arch} of {trained_with}, which is not "
            "installed: install it."
        )
    if str(plugin) != trained_with:
        logger.warning(f"{path} was trained with {arch} of {trained_with}; {plugin} is installed.")
