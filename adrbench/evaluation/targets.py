"""From what a user points at to weights: run directories, checkpoints, other code's files, the zoo.

Whatever can be refused without reading or downloading anything is refused first.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from adrbench.checkpoints.third_party import load_third_party
from adrbench.checkpoints.torch_files import describe_unread, read_torch_file
from adrbench.config.method import WEIGHTS
from adrbench.config.threat import NORMS, ThreatModel
from adrbench.data import DATASETS, dataset_name, load_split
from adrbench.errors import CheckpointError, DataError, UsageError, unknown_name
from adrbench.models.architectures import ACTIVATIONS, build_model, canonical_arch
from adrbench.models.robustbench_zoo import ZOO_DATASETS, load_zoo_model
from adrbench.runtime.hashing import tensor_bytes

logger = logging.getLogger(__name__)

ZOO = "robustbench:"
#: RobustBench's radii, for weights whose own threat model is not known.
STANDARD_EPS = {"Linf": 8 / 255, "L2": 0.5}
WEIGHTS_CHOICES = (*WEIGHTS, "both")
DEFAULT_ACTIVATION = "relu"

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class TargetModel:
    """A set of weights to attack, what is known of it, and what it is attacked within.

    The fields up to `training_sha256` are those of a record.
    """

    dataset: str
    arch: str
    activation: str
    method: str
    weights: str
    selection: str
    selected_on: str | None
    epoch: int | None
    seed: int | None
    run: str
    checkpoint_sha256: str
    training_sha256: str | None
    threat: ThreatModel
    model: nn.Module

    @property
    def weights_sha256(self) -> str:
        """A fingerprint of the model as it will be evaluated, with its normalisation."""
        return sha256_of_weights(self.model)

    @property
    def label(self) -> str:
        """A short name for displays."""
        if self.weights == "file":
            return self.run
        return f"{self.run} {self.selection} {self.weights}"


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What the user said of the targets, beside their names; None is "as the target says".

    Raises:
        UsageError: for a name that does not exist.

    """

    weights: str | None = None
    dataset: str | None = None
    arch: str | None = None
    activation: str | None = None
    normalize: str | None = None
    norm: str | None = None
    eps: float | None = None
    data_dir: Path = Path("data")
    zoo_dir: Path = Path("models")

    def __post_init__(self) -> None:
        for kind, name, valid in (
            ("weights", self.weights, WEIGHTS_CHOICES),
            ("activation", self.activation, ACTIVATIONS),
            ("normalisation", self.normalize, (*NORMALIZATIONS, "none")),
            ("norm", self.norm, NORMS),
        ):
            if name is not None and name not in valid:
                raise unknown_name(kind, name, valid)
        if self.dataset is not None:
            dataset_name(self.dataset)
        if self.arch is not None:
            canonical_arch(self.arch)

    def threat(self, trained: ThreatModel | None = None) -> ThreatModel:
        """Return what to attack within: as asked, else as trained, else RobustBench's radius.

        Raises UsageError for a radius that is not one.
        """
        norm = self.norm or (trained.norm if trained else "Linf")
        standard = trained.eps if trained and trained.norm == norm else STANDARD_EPS[norm]
        return ThreatModel(norm=norm, eps=standard if self.eps is None else self.eps)


def resolve_targets(target: str, options: TargetOptions) -> list[TargetModel]:
    """Return the weights that `target` names; logs what is assumed or ignored.

    Raises:
        UsageError: when something must be said that was not.
        CheckpointError: when a file cannot be read or does not fit its model.

    """
    if target.startswith(ZOO):
        return [_zoo_model(target, options)]
    path = Path(target)
    if not path.exists():
        raise CheckpointError(
            f"{target} does not exist: give a run directory, a checkpoint, or {ZOO}NAME."
        )
    if not path.is_dir():
        return _models_in_file(path, options)
    files = [path / name for name in (checkpoints.BEST, checkpoints.LAST)]
    found = [file for file in files if file.exists()]
    if not found:
        raise CheckpointError(
            f"{target} holds no {checkpoints.BEST} or {checkpoints.LAST}: "
            "give the directory of a run, as `adrbench train` printed it."
        )
    return [target_model for file in found for target_model in _models_in_file(file, options)]


def _models_in_file(path: Path, options: TargetOptions) -> list[TargetModel]:
    file = read_torch_file(path)
    if not checkpoints.is_ours(file.content):
        if file.unread:
            logger.warning(
                f"{path} holds objects too, which were left unread: {describe_unread(file.unread)}."
            )
        return [_third_party_model(path, file.content, options)]
    checkpoint = checkpoints.parse(file, path)
    _warn_of_ignored(options, ("arch", "activation", "normalize"), f"{path} says its own")
    target_models = [
        _own_model(path, checkpoint, name, options) for name in _wanted(checkpoint, options)
    ]
    done, epochs = target_models[0].epoch or 0, checkpoint.config.epochs
    if checkpoint.selection == "last" and done < epochs:
        more = " and some steps" if is_within_epoch(checkpoint) else ""
        logger.warning(
            f"{checkpoint.run} is not finished: {done} of {epochs} epochs{more} are attacked."
        )
    return target_models


def is_within_epoch(checkpoint: Checkpoint) -> bool:
    """Tell whether weights were taken some steps after their epoch."""
    return any(taken.clean_correct is None for taken in checkpoint.snapshots.values())


def _wanted(checkpoint: Checkpoint, options: TargetOptions) -> tuple[str, ...]:
    if options.weights == "both":
        return tuple(name for name in WEIGHTS if name in checkpoint.snapshots)
    return (options.weights or checkpoint.config.parsed_method().deployed,)


def _own_model(
    path: Path, checkpoint: Checkpoint, weights: str, options: TargetOptions
) -> TargetModel:
    config = checkpoint.config
    threat = options.threat(config.threat_model())
    model = checkpoints.restore(checkpoint, weights, path)
    known = config.dataset in DATASETS or Path(config.dataset).expanduser().exists()
    if options.dataset is None and not known:
        raise DataError(
            f"{path} was trained on {config.dataset}, which is not there: "
            "say where its data set is with --dataset."
        )
    return TargetModel(
        dataset=options.dataset or config.dataset,
        arch=config.arch,
        activation=config.activation,
        method=config.method,
        weights=weights,
        selection=checkpoint.selection,
        selected_on=config.select,
        epoch=checkpoint.snapshots[weights].epoch,
        seed=config.seed,
        run=checkpoint.run,
        checkpoint_sha256=checkpoints.sha256(path),
        training_sha256=config.sha256(checkpoint.processes),
        threat=threat,
        model=model,
    )


def _third_party_model(path: Path, content: object, options: TargetOptions) -> TargetModel:
    if options.arch is None or options.dataset is None:
        raise UsageError(
            f"{path} is not an adrbench checkpoint: for weights from elsewhere, give --arch and "
            "--dataset (and --normalize, when the pixels were normalised outside the model)."
        )
    if options.weights == "both":
        raise UsageError(f"{path} is weights from elsewhere: choose --weights student or average.")
    threat = options.threat()
    activation = options.activation or DEFAULT_ACTIVATION
    images, info = load_split(options.dataset, "test", data_dir=options.data_dir)
    model = build_model(
        options.arch,
        num_classes=info.num_classes,
        in_channels=images.pixels.shape[1],
        activation=activation,
    )
    report = load_third_party(
        content,
        model,
        normalize=NORMALIZATIONS.get(options.normalize or "none"),
        weights=options.weights,  # type: ignore[arg-type]
    )
    if report.other_entries and options.weights is None:
        others = ", ".join(report.other_entries)
        logger.warning(f"{path} holds {others} too; {report.entry} is attacked, see --weights.")
    chosen = options.weights if report.entry else None
    if chosen is None:
        _warn_of_ignored(options, ("weights",), f"{path} holds one set of weights")
    if options.normalize is None and not report.normalization_in_file:
        logger.warning(
            f"{path} holds no normalisation, so pixels go in as they are, in [0, 1]; if it was "
            "trained on normalised images, give --normalize (such as --normalize cifar10)."
        )
    if options.eps is None:
        logger.warning(
            f"{path} does not say what it was trained against: eps {threat.eps:.4g} is taken."
        )
    return _without_history(
        dataset=options.dataset,
        arch=canonical_arch(options.arch),
        activation=activation,
        run=f"{path.stem}-{chosen}" if chosen else path.stem,
        checkpoint_sha256=checkpoints.sha256(path),
        threat=threat,
        model=model.eval(),
    )


#: What --normalize names beside "none": mean and standard deviation per channel.
NORMALIZATIONS: dict[str, Normalization] = {
    name: (source.mean, source.std)
    for name, source in DATASETS.items()
    if source.mean is not None and source.std is not None
}


def _zoo_model(target: str, options: TargetOptions) -> TargetModel:
    name = target.removeprefix(ZOO)
    if options.dataset is None:
        raise UsageError(f"{target} needs --dataset {' or '.join(ZOO_DATASETS)}.")
    threat = options.threat()
    ignored = ("weights", "arch", "activation", "normalize")
    _warn_of_ignored(options, ignored, f"{target} says its own")
    model = load_zoo_model(
        name,
        dataset=_zoo_dataset(name, options),
        norm=threat.norm,
        zoo_dir=options.zoo_dir,
    )
    return _without_history(
        dataset=options.dataset,
        arch=name,
        activation=DEFAULT_ACTIVATION,
        run=target,
        checkpoint_sha256=sha256_of_weights(model),
        threat=threat,
        model=model,
    )


def _zoo_dataset(name: str, options: TargetOptions) -> str:
    """Return whose models of the zoo are meant: for images of one's own, by number of classes."""
    assert options.dataset is not None
    if options.dataset in DATASETS:
        return options.dataset
    _, info = load_split(options.dataset, "test", data_dir=options.data_dir)
    fitting = [key for key, classes in ZOO_DATASETS.items() if classes == info.num_classes]
    if not fitting:
        listed = " and ".join(f"{key} ({n} classes)" for key, n in ZOO_DATASETS.items())
        raise UsageError(
            f"{options.dataset} has {info.num_classes} classes, but RobustBench has models of "
            f"{listed}: give a --dataset with as many."
        )
    logger.warning(f"{name} is taken from the zoo's {fitting[0]} models.")
    return fitting[0]


def _without_history(
    *,
    dataset: str,
    arch: str,
    activation: str,
    run: str,
    checkpoint_sha256: str,
    threat: ThreatModel,
    model: nn.Module,
) -> TargetModel:
    return TargetModel(
        dataset=dataset,
        arch=arch,
        activation=activation,
        method="",
        weights="file",
        selection="file",
        selected_on=None,
        epoch=None,
        seed=None,
        run=run,
        checkpoint_sha256=checkpoint_sha256,
        training_sha256=None,
        threat=threat,
        model=model,
    )


def _warn_of_ignored(options: TargetOptions, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            logger.warning(f"--{name} is ignored: {why}.")


def sha256_of_weights(model: nn.Module) -> str:
    """Return the SHA-256, in hex, of a model's state dict, whatever file it came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()
