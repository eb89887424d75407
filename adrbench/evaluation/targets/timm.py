"""Targets from timm: its networks with their pretrained weights."""

from torch import nn

from adrbench.errors import UsageError, argument
from adrbench.evaluation.targets.normalization import normalize
from adrbench.evaluation.targets.target import TargetModel, TargetOptions
from adrbench.models.architectures import DEFAULT_ACTIVATION
from adrbench.models.timm_models import PREFIX, Pretrained, check_name, load_pretrained
from adrbench.printable import get_logger
from adrbench.registry import spell_for_files
from adrbench.runtime.hashing import hash_weights

__all__ = ["PREFIX", "load_target"]

logger = get_logger(__name__)


def load_target(target: str, options: TargetOptions) -> TargetModel:
    """Return the network of `target`, `timm:NAME`, with its pretrained weights.

    Pixels are normalized as timm does for these weights, unless --normalize is given.

    Raises:
        UsageError: when --dataset is missing, or timm has no such weights for its images.
        CheckpointError: when the weights cannot be downloaded or read.

    """
    if options.dataset is None:
        raise UsageError(
            f"{target} needs {argument('dataset')}: give the data set to attack it on."
        )
    name = check_name(target)
    threat_model = options.threat_model()
    options.warn_of_ignored(("weights", "arch", "activation"), f"{target} specifies its own")
    images, _ = options.test_split(options.dataset)
    channels, height, width = images.pixels.shape[1:]
    pretrained = load_pretrained(name, (channels, height, width))
    if (height, width) != pretrained.trained_size:
        logger.warning(
            f"{target} was trained on images of {_spell(pretrained.trained_size)} pixels; those of "
            f"{options.dataset} have {_spell((height, width))}."
        )
    return TargetModel(
        dataset=options.dataset,
        arch=target,
        activation=DEFAULT_ACTIVATION,
        run=spell_for_files(target),
        checkpoint_sha256=hash_weights(pretrained.network),
        threat_model=threat_model,
        model=_normalize(target, pretrained, options, channels),
    )


def _normalize(
    target: str, pretrained: Pretrained, options: TargetOptions, channels: int
) -> nn.Module:
    """Return the network with the given normalization, else timm's own, in front of it."""
    if options.normalize is not None:
        return normalize(pretrained.network, options.normalization(channels), channels)
    mean, std = pretrained.mean, pretrained.std
    logger.info(
        f"{target} is attacked with timm's weights {pretrained.weights}, for which pixels are "
        f"normalized by mean {mean} and std {std}; see {argument('normalize')}."
    )
    return normalize(pretrained.network, (mean, std), channels)


def _spell(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
