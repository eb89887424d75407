"""Targets from RobustBench's model zoo."""

from adrbench.data import DATASETS
from adrbench.errors import UsageError, argument
from adrbench.evaluation.targets.target import TargetModel, TargetOptions
from adrbench.models.architectures import DEFAULT_ACTIVATION
from adrbench.models.robustbench_zoo import ZOO_DATASETS, load_zoo_model
from adrbench.printable import get_logger
from adrbench.runtime.hashing import hash_weights

logger = get_logger(__name__)

PREFIX = "robustbench:"


def load_target(target: str, options: TargetOptions) -> TargetModel:
    """Return the zoo model of `target`, `robustbench:NAME`; download it if necessary.

    Raises:
        UsageError: when --dataset is missing, or the zoo has no such model for it.
        CheckpointError: when the weights cannot be downloaded or read.

    """
    name = target.removeprefix(PREFIX)
    if options.dataset is None:
        raise UsageError(f"{target} needs {argument('dataset')}: {' or '.join(ZOO_DATASETS)}.")
    threat_model = options.threat_model()
    options.warn_of_ignored(
        ("weights", "arch", "activation", "normalize"), f"{target} specifies its own"
    )
    model = load_zoo_model(
        name,
        dataset=_find_zoo_dataset(name, options.dataset, options),
        norm=threat_model.norm,
        zoo_dir=options.zoo_dir,
    )
    return TargetModel(
        dataset=options.dataset,
        arch=name,
        activation=DEFAULT_ACTIVATION,
        run=target,
        checkpoint_sha256=hash_weights(model),
        threat_model=threat_model,
        model=model,
    )


def _find_zoo_dataset(name: str, dataset: str, options: TargetOptions) -> str:
    """Return the zoo's data set for `dataset`: for a user's own images, by number of classes."""
    if dataset in DATASETS:
        return dataset
    _, source = options.test_split(dataset)
    if source.published:
        return source.name
    fitting = [
        key
        for key, classes in ZOO_DATASETS.items()
        if classes == source.num_classes
        or (not source.classes_are_known and classes > source.num_classes)
    ]
    if not fitting:
        listed = " and ".join(f"{key} ({n} classes)" for key, n in ZOO_DATASETS.items())
        at_least = "" if source.classes_are_known else "at least "
        raise UsageError(
            f"{dataset} has {at_least}{source.num_classes} classes, but RobustBench has models of "
            f"{listed}: give a {argument('dataset')} with as many."
        )
    logger.warning(f"{name} is loaded from RobustBench's models of {fitting[0]}.")
    return fitting[0]
