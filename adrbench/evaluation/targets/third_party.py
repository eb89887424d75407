"""Targets from state dicts that other code saved."""

from functools import partial
from pathlib import Path

from adrbench.checkpoints.third_party import LoadReport, count_classes, load_third_party
from adrbench.config.declare import format_eps
from adrbench.config.method import Weights
from adrbench.errors import CheckpointError, UsageError, abbreviate, argument, list_first
from adrbench.evaluation.targets.target import TargetModel, TargetOptions
from adrbench.models.architectures import (
    DEFAULT_ACTIVATION,
    build_model,
    find_activation,
    find_architecture,
)
from adrbench.printable import get_logger, printable
from adrbench.runtime.hashing import hash_file

logger = get_logger(__name__)

#: How many other entries of a file a note names.
MAX_SHOWN = 6


def load_target(path: Path, content: object, options: TargetOptions) -> TargetModel:
    """Return the model whose state dict is in `content`, read from `path`.

    Raises:
        UsageError: when an option that the file cannot replace is missing.
        CheckpointError: when the weights do not fit the architecture.

    """
    if options.arch is None or options.dataset is None:
        raise UsageError(_explain_required(path, options))
    if options.weights == "both":
        raise UsageError(
            f"{path} contains third-party weights: choose {argument('weights')} student or average."
        )
    threat_model = options.threat_model()
    architecture = find_architecture(options.arch)
    activation = find_activation(architecture, options.activation or DEFAULT_ACTIVATION)
    images, source = options.test_split(options.dataset)
    channels, height, width = images.pixels.shape[1:]
    weights: Weights | None = options.weights  # type: ignore[assignment]
    build = partial(
        build_model,
        architecture,
        in_channels=channels,
        activation=activation,
        image_size=(height, width),
    )
    model = build(num_classes=source.num_classes)
    normalization = options.normalization(channels)
    try:
        if not source.classes_are_known:
            model = build(num_classes=count_classes(content, model, weights) or source.num_classes)
        report = load_third_party(content, model, normalize=normalization, weights=weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _log_assumptions(path, report, options, eps=threat_model.eps)
    chosen = options.weights if report.entry else None
    return TargetModel(
        dataset=options.dataset,
        arch=architecture.name,
        activation=activation,
        run=printable(f"{path.stem}-{chosen}" if chosen else path.stem),
        checkpoint_sha256=hash_file(path),
        threat_model=threat_model,
        model=model.eval(),
    )


def _explain_required(path: Path, options: TargetOptions) -> str:
    """Return which options third-party weights need, and what to give."""
    examples = {"arch": "timm:resnet18", "dataset": "cifar10"}
    missing = [name for name in examples if getattr(options, name) is None]
    names = " and ".join(argument(name) for name in missing)
    example = " ".join(argument(name, examples[name]) for name in missing)
    return (
        f"{path} contains third-party weights, which specify neither their architecture nor their "
        f"data: give {names}, such as {example}, and {argument('normalize')} if pixels were "
        "normalized outside the model."
    )


def _log_assumptions(path: Path, report: LoadReport, options: TargetOptions, *, eps: float) -> None:
    if report.other_entries and options.weights is None:
        others = list_first(report.other_entries, MAX_SHOWN)
        logger.warning(
            f"{path} also contains {others}: {abbreviate(report.entry)} is attacked, see "
            f"{argument('weights')}."
        )
    if not report.entry:
        options.warn_of_ignored(("weights",), f"{path} contains only one set of weights")
    if options.normalize is None and not report.normalization_in_file:
        logger.warning(
            f"{path} contains no normalization constants: the model receives pixels in [0, 1]; if "
            f"it was trained on normalized images, give {argument('normalize')}, such as cifar10."
        )
    if options.eps is None:
        logger.warning(
            f"{path} does not specify the eps it was trained with: eps is {format_eps(eps)}, see "
            f"{argument('eps')}."
        )
