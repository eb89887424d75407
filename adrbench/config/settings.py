"""What a training run and an attack are asked to do: frozen, checked, and stored with both."""

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from adrbench.config.method import Method, parse_method
from adrbench.config.threat import ThreatModel, check_eps
from adrbench.errors import UsageError
from adrbench.runtime.typed_json import from_json, to_json

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
Select = Literal["val", "test"]
SELECTS: tuple[Select, ...] = ("val", "test")
BatchNormMode = Literal["train", "eval"]
BATCH_NORM_MODES: tuple[BatchNormMode, ...] = ("train", "eval")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training run's weights.

    `dataset` is a table name or a path; `method` is spelt canonically. eps and alpha are in
    units of the pixel range. `milestones` are fractions of the run after which the learning
    rate is multiplied by `lr_factor`, rounded to whole steps. Numbers of a slot the method
    leaves empty are None. `crafting_mode` is the mode of BatchNorm while adversarial examples
    are made ("train" in the published code). `sync_batch_norm` lets the BatchNorm of several
    processes see the whole batch. `preset` says where the defaults came from.

    Raises:
        UsageError: naming the first setting that is out of its range.

    """

    dataset: str
    arch: str
    method: str
    activation: str = "relu"
    seed: int = 0
    epochs: int
    batch_size: int
    lr: float
    milestones: tuple[float, ...]
    lr_factor: float
    momentum: float
    nesterov: bool
    weight_decay: float
    norm: str = "Linf"
    eps: float
    alpha: float
    steps: int
    crop_padding: int
    flip: bool
    temperature_high: float | None = None
    temperature_low: float | None = None
    interpolation_low: float | None = None
    interpolation_high: float | None = None
    ema_decay: float | None = None
    awp_rho: float | None = None
    beta: float | None = None
    crafting_mode: BatchNormMode = "train"
    val_size: int
    select: Select = "val"
    precision: Precision = "float32"
    sync_batch_norm: bool = False
    preset: str = ""

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        for name, low, high in RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise out_of_range(name, value, low, high)
        for name in self.required():
            if getattr(self, name) is None:
                raise UsageError(f"method {self.method} needs {flag(name)}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{flag(name)} is {getattr(self, name)!r}: choose {' or '.join(allowed)}."
                )
        if any(not 0 < fraction < 1 for fraction in self.milestones):
            raise UsageError(
                f"--milestones are {self.milestones}: give fractions of the run, such as 0.5,0.75."
            )
        if self.select == "val" and self.val_size == 0:
            raise UsageError("--val-size is 0: hold images out, or say --select test.")

    def parsed_method(self) -> Method:
        """Return the method's slots."""
        return parse_method(self.method)

    def required(self) -> tuple[str, ...]:
        """Return the names of the optional numbers that this method uses."""
        return method_settings(self.parsed_method())

    def threat_model(self) -> ThreatModel:
        """Return the threat model trained against."""
        return ThreatModel(norm=self.norm, eps=self.eps)

    def to_json(self) -> dict[str, Any]:
        """Return this configuration as plain JSON values."""
        config: dict[str, Any] = to_json(self)
        return config

    @classmethod
    def from_json(cls, data: object) -> "TrainConfig":
        """Read a configuration back; ValueError names the field that is wrong."""
        return from_json(cls, data)

    def sha256(self, processes: int = 1) -> str:
        """Return a fingerprint of everything that decides the weights but data and seed.

        The number of `processes` does, where BatchNorm sees the shares of a batch one by one.

        `adr` and `adr+wa` train alike, so the token `wa` plays no part. A setting that came later
        counts only where it is used, so that fingerprints stay what they were.
        """
        later = {name for name, default in LATER.items() if getattr(self, name) == default}
        method = str(replace(self.parsed_method(), wa=False))
        apart = {"seed": 0, "dataset": "", "preset": "", "method": method}
        settings = {**self.to_json(), **apart}
        if processes > 1 and not self.sync_batch_norm:
            settings["processes"] = processes
        content = json.dumps(
            {name: value for name, value in settings.items() if name not in later}, sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def differences(self, other: "TrainConfig") -> list[tuple[str, Any, Any]]:
        """Return the settings that differ, each with both values.

        How the data set's path was spelt and where defaults came from play no part.
        """
        names = [field.name for field in fields(self) if field.name not in ("preset", "dataset")]
        values = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [(name, mine, theirs) for name, mine, theirs in values if mine != theirs]


#: Settings that fingerprints made before them know nothing of, with their defaults.
LATER: dict[str, Any] = {"sync_batch_norm": False}
#: Larger whole numbers overflow wherever they meet a float or a tensor.
MOST = 2**31 - 1
#: setting, smallest and largest allowed value.
RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, 2**63 - 1),
    ("epochs", 1, MOST),
    ("batch_size", 1, MOST),
    ("lr", 1e-12, 1e6),
    ("lr_factor", 0, 1),
    ("momentum", 0, 1),
    ("weight_decay", 0, 1),
    ("alpha", 1e-12, 1e6),
    ("steps", 1, MOST),
    ("crop_padding", 0, 1024),
    ("temperature_high", 1e-6, 1e6),
    ("temperature_low", 1e-6, 1e6),
    ("interpolation_low", 0, 1),
    ("interpolation_high", 0, 1),
    ("ema_decay", 0, 1),
    ("awp_rho", 0, 1e6),
    ("beta", 0, 1e6),
    ("val_size", 0, MOST),
)
CHOICES: dict[str, tuple[str, ...]] = {
    "precision": PRECISIONS,
    "select": SELECTS,
    "crafting_mode": BATCH_NORM_MODES,
}


def method_settings(method: Method) -> tuple[str, ...]:
    """Return the settings that only some methods use, and this one does."""
    names: tuple[str, ...] = ()
    if method.adr:
        names += ("temperature_high", "temperature_low", "interpolation_low", "interpolation_high")
    if method.averages:
        names += ("ema_decay",)
    if method.awp:
        names += ("awp_rho",)
    if method.objective == "trades":
        names += ("beta",)
    return names


METHOD_SETTINGS = method_settings(Method(objective="trades", adr=True, wa=True, awp=True))


def flag(name: str) -> str:
    """Return how the command line spells a setting."""
    return "--" + name.replace("_", "-")


def out_of_range(name: str, value: float, low: float, high: float) -> UsageError:
    """Return the error for a number outside what is allowed."""
    bounds = f"from {low:g} to {high:g}"
    if high == MOST:
        bounds = f"at least {low:g}" if value < low else f"at most {MOST}"
    shown = value if isinstance(value, int) else f"{value:g}"
    return UsageError(f"{flag(name)} is {shown}: give a number {bounds}.")


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """What an evaluation does to a set of weights, whatever the weights are.

    `n` counts test images from the first on, None is all of them. `alpha` is the step of the
    PGD suites, None for their default of eps / 4; `restarts` is theirs too.

    Raises:
        UsageError: naming the first setting that is out of its range.

    """

    suite: str = "autoattack"
    threat_model: ThreatModel
    n: int | None = None
    alpha: float | None = None
    restarts: int = 1
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in ATTACK_RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise out_of_range(name, value, low, high)


ATTACK_RANGES: tuple[tuple[str, float, float], ...] = (
    ("n", 1, MOST),
    ("alpha", 1e-12, 1e6),
    ("restarts", 1, MOST),
    ("batch_size", 1, MOST),
    ("seed", 0, 2**63 - 1),
)


def parse_fraction(text: str, name: str) -> float:
    """Return the number that `text` writes as `8/255` or `0.0314`.

    Raises:
        UsageError: when it is neither.

    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{flag(name)} is {text!r}: write a number such as 8/255 or 0.0314.")
    return value
