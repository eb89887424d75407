"""Targets at import paths: networks built by the user's code."""

from torch import nn

from adrbench.errors import UsageError, argument
from adrbench.evaluation.targets.normalization import normalize
from adrbench.evaluation.targets.target import TargetModel, TargetOptions
from adrbench.models.architectures import DEFAULT_ACTIVATION
from adrbench.models.foreign import fingerprint_weights
from adrbench.printable import get_logger
from adrbench.registry import (
    ImportPathError,
    calling_user_code,
    load_import_path,
    spell_for_files,
)

logger = get_logger(__name__)


def load_target(target: str, options: TargetOptions) -> TargetModel:
    """Return the model at `target`, an import path, in eval mode on the CPU.

    Raises:
        UsageError: when --dataset is missing, or the object is not a network.
        ImportPathError: when the path does not exist, or its code raises.

    """
    if options.dataset is None:
        raise UsageError(
            f"{target} needs {argument('dataset')}: give the data set to attack it on."
        )
    threat_model = options.threat_model()
    options.warn_of_ignored(("weights", "arch", "activation"), f"{target} specifies its own")
    network = load_network(target)
    sha256 = fingerprint_weights(target, network)
    network = model = network.cpu().eval()
    if options.normalize is not None:
        images, _ = options.test_split(options.dataset)
        channels = images.pixels.shape[1]
        model = normalize(network, options.normalization(channels), channels)
        logger.info(
            f"{target} gets pixels that are normalized in front of it, as "
            f"{argument('normalize', options.normalize)} says."
        )
    return TargetModel(
        dataset=options.dataset,
        arch=target,
        activation=DEFAULT_ACTIVATION,
        run=spell_for_files(target),
        checkpoint_sha256=sha256,
        threat_model=threat_model,
        model=model,
    )


def load_network(target: str) -> nn.Module:
    """Return the network at an import path, or the one that a callable there returns."""
    found = load_import_path(target)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise UsageError(
            f"{target} is of type {type(found).__name__}: name an nn.Module, or a callable without "
            "arguments that returns one."
        )
    with calling_user_code(
        lambda raised: (
            f"{target} {raised} when it was called: name an nn.Module, or a callable without "
            "arguments that returns one."
        ),
        ImportPathError,
    ):
        network = found()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"{target} returned an object of type {type(network).__name__}: it must "
            "return an nn.Module."
        )
    return network
