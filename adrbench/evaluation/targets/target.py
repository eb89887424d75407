"""A target: a model to evaluate, how its weights were trained, and the options that select it."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import nn

from adrbench.checkpoints.third_party import Normalization
from adrbench.config.method import WEIGHTS
from adrbench.config.settings import Select
from adrbench.config.threat import NORMS, STANDARD_EPS, ThreatModel
from adrbench.data import Images, Source, dataset_name, load_split
from adrbench.errors import UsageError, argument, unknown_name
from adrbench.evaluation.plausibility import Accuracy, doubt_accuracy, doubt_average
from adrbench.evaluation.targets.normalization import NONE, parse_normalization, per_channel
from adrbench.models.architectures import ACTIVATIONS, canonical_arch
from adrbench.printable import get_logger, is_printable
from adrbench.runtime.hashing import hash_weights
from adrbench.runtime.source_code import fingerprint_modules

logger = get_logger(__name__)

WEIGHTS_CHOICES = (*WEIGHTS, "both")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How weights were trained, in the fields of a record.

    The defaults are those of weights that this package did not train. `settings_sha256` is a
    fingerprint of the training settings without the seed, `images_sha256` one of the training
    images; `label` is the name of the run if the user chose it. `validated` is the clean validation
    accuracy after `epoch`, and `averaged_steps` and `decay` describe the averaging; each is None if
    unknown. `unfinished` states the progress of an unfinished run.
    """

    method: str = ""
    weights: Literal["student", "average", "file"] = "file"
    selection: Literal["best", "last", "file"] = "file"
    selected_on: Select | None = None
    epoch: int | None = None
    seed: int | None = None
    settings_sha256: str | None = None
    images_sha256: str | None = None
    label: str = ""
    validated: Accuracy | None = None
    averaged_steps: int | None = None
    decay: float | None = None
    unfinished: str = ""

    @property
    def is_known(self) -> bool:
        """Whether this package trained the weights."""
        return self.weights != "file"

    def find_doubts(self, clean: Accuracy, *, num_classes: int) -> list[str]:
        """Return why weights with this `clean` accuracy may not be the intended ones."""
        doubts = list(doubt_accuracy(clean, num_classes=num_classes, recorded=self.validated))
        if self.averaged_steps is not None and self.decay is not None:
            doubts += doubt_average(steps=self.averaged_steps, decay=self.decay)
        if self.unfinished:
            doubts.append(f"the run was {self.unfinished}.")
        return doubts


@dataclass(frozen=True, kw_only=True)
class TargetModel:
    """A model to evaluate on `dataset`, and the threat model to evaluate it under.

    `run` is the name in records and tables. `checkpoint_sha256` is that of the file, or of the
    weights if they were not loaded from a user's file.
    """

    dataset: str
    arch: str
    activation: str
    run: str
    checkpoint_sha256: str
    threat_model: ThreatModel
    model: nn.Module
    training: Training = field(default_factory=Training)

    @cached_property
    def weights_sha256(self) -> str:
        """A fingerprint of the model as it is evaluated, including its normalization."""
        return hash_weights(self.model)

    @cached_property
    def code(self) -> str:
        """A fingerprint of the user's source code behind the model, "" if there is none.

        A script that is running does not count: most edits of it do not concern the model.
        """
        modules = {type(module).__module__ for module in self.model.modules()}
        return fingerprint_modules(modules - {"__main__"})

    def at_radius(self, eps: float) -> "TargetModel":
        """Return the same target under another radius."""
        other = replace(self, threat_model=replace(self.threat_model, eps=eps))
        vars(other).update(weights_sha256=self.weights_sha256, code=self.code)
        return other

    @property
    def label(self) -> str:
        """A short name for displays."""
        if not self.training.is_known:
            return self.run
        return f"{self.run} {self.training.selection} {self.training.weights}"


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """The options that apply to all targets; None means the target's own value.

    Raises:
        UsageError: for an unknown name, or a `normalize` that `parse_normalization` rejects.

    """

    weights: str | None = None
    dataset: str | None = None
    arch: str | None = None
    activation: str | None = None
    normalize: str | None = None
    norm: str | None = None
    eps: float | None = None
    name: str | None = None
    data_dir: Path = Path("data")
    zoo_dir: Path = Path("models")
    _test_splits: dict[str, tuple[Images, Source]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for kind, name, valid in (
            ("weights", self.weights, WEIGHTS_CHOICES),
            ("activation", self.activation, ACTIVATIONS),
            ("norm", self.norm, NORMS),
        ):
            if name is not None and name not in valid:
                raise unknown_name(kind, name, valid)
        if self.name is not None and not (self.name.strip() and is_printable(self.name)):
            raise UsageError(
                f"{argument('name')} is {self.name!r}: give a name that can be printed."
            )
        if self.normalize is not None:
            parse_normalization(self.normalize)
        if self.dataset is not None:
            dataset_name(self.dataset)
        if self.arch is not None:
            canonical_arch(self.arch)

    def threat_model(self, trained: ThreatModel | None = None) -> ThreatModel:
        """Return the threat model to evaluate under.

        This is the given one, else the one used in training (`trained`), else RobustBench's.

        Raises:
            UsageError: for an invalid eps.

        """
        norm = self.norm or (trained.norm if trained else "Linf")
        standard = trained.eps if trained and trained.norm == norm else STANDARD_EPS[norm]
        return ThreatModel(norm=norm, eps=standard if self.eps is None else self.eps)

    def test_split(self, dataset: str) -> tuple[Images, Source]:
        """Return the test images of a data set, which are read once, and their source.

        Raises:
            DataError: when they are missing or invalid.

        """
        if dataset not in self._test_splits:
            self._test_splits[dataset] = load_split(dataset, "test", data_dir=self.data_dir)
        return self._test_splits[dataset]

    def normalization(self, channels: int) -> Normalization | None:
        """Return the mean and standard deviation of each of `channels`, None without any."""
        parsed = parse_normalization(self.normalize or NONE)
        return None if parsed is None else per_channel(parsed, channels)

    def warn_of_ignored(self, names: tuple[str, ...], reason: str) -> None:
        """Log a warning for each option of `names` that was given."""
        for name in names:
            if getattr(self, name) is not None:
                logger.warning(f"{argument(name)} is ignored: {reason}.")
