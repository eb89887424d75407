"""The configurations of a training run and of an attack: frozen, checked, stored with results."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal

from adrbench.config.components import component_settings, null_settings
from adrbench.config.declare import (
    MAX_INT,
    Setting,
    check_settings,
    setting,
    settings_of,
)
from adrbench.config.method import Method, parse_method
from adrbench.config.threat import ThreatModel, check_eps
from adrbench.errors import AdrbenchError, UsageError, argument
from adrbench.runtime.arithmetic import AUTO, PRECISIONS, TRAINING_PRECISIONS, Precision
from adrbench.runtime.hashing import hash_json
from adrbench.runtime.typed_json import from_json, to_json

Select = Literal["val", "test"]
SELECTS: tuple[Select, ...] = ("val", "test")
BatchNormMode = Literal["train", "eval"]
BATCH_NORM_MODES: tuple[BatchNormMode, ...] = ("train", "eval")
Compile = Literal["auto", "on", "off"]
COMPILE: tuple[Compile, ...] = (AUTO, "on", "off")
#: The default number of minutes between saves of a run within an epoch.
SAVE_MINUTES: float = 5


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a training run's weights.

    `dataset` is a built-in name or a path; `method` is spelled canonically. eps and alpha are in
    units of the pixel range. `milestones` are fractions of the run, rounded to whole steps.
    `method_settings` are the settings of the method's components by name (see
    `config.components`); stored as JSON they are beside the others. `preset` is the source of
    the defaults. A setting that is "auto" is decided when the run is prepared, and stored as
    decided.

    Raises:
        UsageError: naming the first setting that is out of its range.

    """

    dataset: str
    arch: str
    method: str
    activation: str = "relu"
    seed: int = setting(default=0, low=0, high=2**63 - 1, help="Random seed.")
    epochs: int = setting(low=1, high=MAX_INT, help="Number of epochs.")
    batch_size: int = setting(low=1, high=MAX_INT, help="Images per step.")
    lr: float = setting(low=1e-12, high=1e6, help="Initial learning rate.")
    milestones: tuple[float, ...] = setting(
        help="Fractions of the run at which the learning rate decays, such as 0.5,0.75; "
        "'' for none."
    )
    lr_factor: float = setting(low=0, high=1, help="Learning-rate decay factor.")
    momentum: float = setting(low=0, high=1, help="SGD momentum.")
    nesterov: bool = setting(help="Nesterov momentum.")
    weight_decay: float = setting(low=0, high=1, help="Weight decay.")
    norm: str = setting(default="Linf", help="Norm of the ball: Linf or L2.")
    eps: float = setting(in_pixels=True, help="Radius of the ball, such as 8/255 or 0.0314.")
    alpha: float = setting(
        in_pixels=True, low=1e-12, high=1e6, help="Step size of the inner attack, such as 2/255."
    )
    steps: int = setting(low=1, high=MAX_INT, help="Steps of the inner attack.")
    crop_padding: int = setting(low=0, high=1024, help="Zero padding for random crops, in pixels.")
    flip: bool = setting(help="Random horizontal flips.")
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    crafting_mode: BatchNormMode = setting(
        default="train",
        choices=BATCH_NORM_MODES,
        help="BatchNorm mode of the inner attack: train (published) or eval.",
    )
    val_size: int = setting(
        low=0,
        high=MAX_INT,
        help="Training images held out to choose the best epoch.",
        show_default="1,000, or 10 % of a small set",
    )
    select: Select = setting(
        default="val",
        choices=SELECTS,
        help="Split on which the best epoch is chosen: val, or test as published.",
    )
    split_seed: int | None = setting(
        default=None,
        low=0,
        high=2**63 - 1,
        is_later=True,
        help="Seed for drawing the held-out images; if set, runs with different --seed train on "
        "the same images.",
        show_default="that of --seed",
    )
    precision: Precision = setting(
        default=AUTO,
        choices=TRAINING_PRECISIONS,
        help="Arithmetic of training: float32 (TF32 off), tf32, bfloat16, or auto, which is "
        "bfloat16 on a GPU that has it and float32 elsewhere.",
    )
    compile: Compile = setting(
        default=AUTO,
        choices=COMPILE,
        implied="off",
        is_fingerprinted=False,
        help="Compile the networks of training steps: on, off, or auto, which is on for a long run "
        "on one GPU.",
    )
    sync_batch_norm: bool = setting(
        default=False, is_later=True, help="With torchrun on GPUs: BatchNorm over the global batch."
    )
    preset: str = ""

    def __post_init__(self) -> None:
        check_values(self.values())
        for name, one in self.parsed_method().settings.items():
            if self.method_settings.get(name) is None and not one.is_optional:
                raise UsageError(f"method {self.method} needs {argument(name)}.")

    @classmethod
    def of(cls, **values: Any) -> "TrainConfig":
        """Return the configuration with these values, the method's settings among them."""
        own, method_settings = _split(values)
        return cls(**own, method_settings=method_settings)

    def parsed_method(self) -> Method:
        """Return the method's components."""
        return parse_method(self.method)

    def averaging_decay(self) -> float | None:
        """Return the decay per step of the averaged weights, None where there is none."""
        averaging = self.parsed_method().built.get("averaging")
        return self.method_settings.get(averaging.decay_setting) if averaging else None

    def threat_model(self) -> ThreatModel:
        """Return the threat model trained against."""
        return ThreatModel(norm=self.norm, eps=self.eps)

    def declared(self) -> Mapping[str, Setting]:
        """Return the settings of every run, those of the method's components included."""
        return settings_with(self.method)

    def with_settings(self, **changes: Any) -> "TrainConfig":
        """Return a copy with other values, the method's settings among them."""
        return TrainConfig.of(**{**self.values(), **changes})

    def values(self) -> dict[str, Any]:
        """Return every setting by name; of components, those that the run has."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        del own["method_settings"]
        return {**own, **self.method_settings}

    def to_json(self) -> dict[str, Any]:
        """Return this configuration as plain JSON values; settings that are not used are null."""
        config: dict[str, Any] = to_json(self._stored())
        return config

    @classmethod
    def from_json(cls, data: object) -> "TrainConfig":
        """Read a configuration; ValueError names the field that is wrong."""
        return from_json(cls, nest_method_settings(add_implied(data)))

    def sha256(self, processes: int = 1) -> str:
        """Return a fingerprint of everything that determines the weights but data and seed.

        The number of `processes` counts where BatchNorm normalizes the shares of a batch apart.

        `adr` and `adr+wa` train alike, so averaging is left out of the method. A setting that
        was added later counts only where it is used, so that older fingerprints stay valid, and
        one that changes nothing but rounding never.
        """
        values = self._stored()
        declared = self.declared().items()
        omitted = {
            name
            for name, one in declared
            if not one.is_fingerprinted or (one.is_later and values.get(name) == one.default)
        }
        method = self.parsed_method().row("student")
        apart = {"seed": 0, "dataset": "", "preset": "", "method": method}
        settings = {**to_json(values), **apart}
        if processes > 1 and not self.sync_batch_norm:
            settings["processes"] = processes
        return hash_json({name: value for name, value in settings.items() if name not in omitted})

    def differences(self, other: "TrainConfig") -> list[tuple[str, Any, Any]]:
        """Return the settings that differ, each with both values.

        The spelling of the data set's path and the source of the defaults are left out.
        """
        mine, theirs = self._stored(), other._stored()
        names = [name for name in mine | theirs if name not in ("preset", "dataset")]
        pairs = [(name, mine.get(name), theirs.get(name)) for name in names]
        return [(name, own, other) for name, own, other in pairs if own != other]

    def _stored(self) -> dict[str, Any]:
        """Return every setting by name, with those that are stored as null where not used."""
        values = self.values()
        return values | {name: values.get(name) for name in null_settings()}


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the general values, and those of components, with declared defaults where absent."""
    used = _used_settings(values.get("method"))
    known = {**component_settings(), **used}
    own = {name: value for name, value in values.items() if name not in known}
    defaults = {name: one.default for name, one in used.items()}
    given = {name: value for name, value in values.items() if name in known and value is not None}
    method_settings = {
        name: tuple(value) if known[name].kind is tuple and isinstance(value, list) else value
        for name, value in {**defaults, **given}.items()
        if value is not None
    }
    return own, method_settings


def _used_settings(method: object) -> Mapping[str, Setting]:
    """Return the settings of a method's components; none for what is no method."""
    try:
        return parse_method(method).settings if isinstance(method, str) else {}
    except AdrbenchError:
        return {}


def nest_method_settings(data: object) -> object:
    """Return stored settings with those of components under `method_settings`, as in the class.

    Raises:
        ValueError: naming a component's setting that has another type.

    """
    if not isinstance(data, Mapping):
        return data
    if "method_settings" in data:
        raise ValueError("unknown field method_settings")
    own, method_settings = _split(data)
    declared = settings_with(data.get("method"))
    for name, value in method_settings.items():
        declared[name].check_type(value)
    return own | {"method_settings": method_settings}


def add_implied(data: object) -> object:
    """Return stored settings with those that the file lacks and implies."""
    if not isinstance(data, Mapping):
        return data
    declared = settings_of(TrainConfig).items()
    return {name: one.implied for name, one in declared if one.implied is not None} | dict(data)


def check_values(values: Mapping[str, Any]) -> None:
    """Raise UsageError for the first setting of a run, among those in `values`, that is wrong.

    Settings of a plugin's component are checked if `values` names a method that uses it.
    """
    for name, one in settings_with(values.get("method")).items():
        if name in values:
            one.check(values[name])
    if "eps" in values:
        check_eps(values["eps"], values.get("norm", TrainConfig.norm))
    if any(not 0 < fraction < 1 for fraction in values.get("milestones", ())):
        raise UsageError(
            f"{argument('milestones')} is {values['milestones']}: give fractions of the run, "
            "such as 0.5,0.75."
        )
    if values.get("select", TrainConfig.select) == "val" and values.get("val_size") == 0:
        raise UsageError(
            f"{argument('val_size')} is 0: hold out some images, or give "
            f"{argument('select', 'test')}."
        )


@cache
def train_settings() -> Mapping[str, Setting]:
    """Return the settings of a training run, those of all built-in components included."""
    return {**settings_of(TrainConfig), **component_settings()}


def settings_with(method: object) -> Mapping[str, Setting]:
    """Return `train_settings()` and the settings of a method's components."""
    return {**train_settings(), **_used_settings(method)}


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """What an evaluation does to a set of weights under any threat model.

    `n` counts test images from the first on, None is all of them. `alpha` is the step of the
    PGD suites, None for their default of eps / 4. A `precision` of "auto" is decided for the device
    when the evaluation is planned.

    Raises:
        UsageError: naming the first setting that is out of its range.

    """

    suite: str = "autoattack"
    n: int | None = setting(
        default=None,
        low=1,
        high=MAX_INT,
        help="Evaluate the first n test images.",
        show_default="all",
    )
    alpha: float | None = setting(
        default=None,
        low=1e-12,
        high=1e6,
        in_pixels=True,
        help="Step size of PGD suites.",
        show_default="eps/4",
    )
    restarts: int = setting(default=1, low=1, high=MAX_INT, help="Random restarts of PGD suites.")
    batch_size: int = setting(default=250, low=1, high=MAX_INT, help="Images per batch.")
    seed: int = setting(default=0, low=0, high=2**63 - 1, help="Seed of the attacks.")
    precision: Precision = setting(
        default=AUTO,
        choices=PRECISIONS,
        help="Arithmetic in which attacks search: float32 (TF32 off), tf32, bfloat16, float16, or "
        "auto, which is tf32 on a GPU that has it and float32 elsewhere. Outcomes are judged in "
        "float32.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
