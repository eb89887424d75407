"""Suites: named sequences of attacks, and the table of those that are built in."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from adrbench.attacks import autoattack, pgd
from adrbench.attacks.autoattack_package import describe_package
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, unknown_name
from adrbench.registry import (
    ImportPathError,
    describe_exception,
    find_plugin,
    is_import_path,
    list_plugins,
    load_import_path,
)
from adrbench.runtime.hashing import hash_file


@runtime_checkable
class Stage(Protocol):
    """One attack of a suite.

    If a stage also has `bind(threat, num_classes, seed)`, the evaluation calls it and runs the
    returned stage, so an attack can be declared before its threat model is known.
    """

    @property
    def name(self) -> str:
        """The attack's name in records and tables."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return perturbed images with the shape and dtype of `x`.

        `x` is (N, C, H, W) float32 in [0, 1], `y` (N,) int64 labels, and `indices` (N,) int64 the
        positions of the images in the test set. `model` maps images to logits (N, num_classes)
        and is in eval mode, with parameters that need no gradients.
        """


def _nothing_to_inspect(model: nn.Module, x: Tensor) -> None:
    pass


def _nothing_to_review(accuracies: Mapping[str, float]) -> None:
    pass


#: Stands for the parameters of a suite's stages.
OF_STAGES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Attacks that run in order, each on the images that the previous ones did not fool.

    `parameters` are plain values that are stored in records and identify the attack; by default,
    they are those of the stages. `left_out` has one sentence for each attack that could not run.
    Outcomes of a `batch_dependent` suite are reproducible only at the same batch size; a suite is
    batch-dependent if a stage has a true attribute of that name.

    `loss(logits, labels)` is a scalar that the gradient attacks maximize, None if there are no such
    attacks. Before the attack, the model is checked for usable gradients of this loss and, unless
    the suite is `for_randomized` models, for deterministic outputs. `inspect` may issue further
    warnings based on a few images (N, C, H, W), and `review` based on the accuracies after the
    attack.

    Raises:
        UsageError: for a stage without a name or `perturb`, two stages with the same name, or a
            name that cannot be printed.

    Example:
        >>> from adrbench import Suite
        >>> from adrbench.attacks import PGD
        >>> suite = Suite(name="two losses", stages=[PGD(), PGD(loss="margin")])
        >>> [stage.name for stage in suite.stages]
        ['pgd-20', 'pgd-20-margin']

    """

    name: str
    stages: Sequence[Stage]
    parameters: Mapping[str, Any] = field(default_factory=lambda: OF_STAGES)
    left_out: tuple[str, ...] = ()
    batch_dependent: bool = False
    loss: pgd.LabelLoss | None = pgd.margin
    for_randomized: bool = False
    inspect: Callable[[nn.Module, Tensor], None] = field(default=_nothing_to_inspect)
    review: Callable[[Mapping[str, float]], None] = field(default=_nothing_to_review)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        for name in (self.name, *(getattr(stage, "name", "?") for stage in self.stages)):
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise UsageError(
                    f"{name!r} is not a valid name for a suite or attack: give a printable string."
                )
        for stage in self.stages:
            if not isinstance(stage, Stage) or not callable(stage.perturb):
                raise UsageError(
                    f"suite {self.name!r} has the stage {stage!r:.60}, which is not an attack: "
                    "give objects with a name and perturb(model, x, y, indices)."
                )
        counts = Counter(stage.name for stage in self.stages)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise UsageError(
                f"suite {self.name!r} has two stages called {repeated[0]!r}: give each its own "
                "name."
            )
        if self.parameters is OF_STAGES:
            described = {stage.name: describe_stage(stage) for stage in self.stages}
            object.__setattr__(self, "parameters", described)
        if any(getattr(stage, "batch_dependent", False) for stage in self.stages):
            object.__setattr__(self, "batch_dependent", True)

    def bind(self, threat: ThreatModel, num_classes: int, seed: int) -> "Suite":
        """Return the suite with its stages bound to the threat model, classes and seed."""
        bound = [
            stage.bind(threat, num_classes, seed) if hasattr(stage, "bind") else stage
            for stage in self.stages
        ]
        return replace(self, stages=bound)


def describe_stage(stage: Stage) -> dict[str, Any]:
    """Return the class of a stage, and its attributes that are plain values or functions.

    For a class defined outside adrbench, a fingerprint of its file is added, so results from before
    a change of its code are not mistaken for later ones.
    """
    names = [one.name for one in fields(stage)] if is_dataclass(stage) else list(vars(stage))
    values = {name: getattr(stage, name) for name in names if not name.startswith("_")}
    described: dict[str, Any] = {"class": type(stage).__qualname__, **fingerprint_code(stage)}
    for name, value in values.items():
        if isinstance(value, ThreatModel):
            described |= {"norm": value.norm, "eps": value.eps}
        elif isinstance(value, str | int | float | bool) and name != "name":
            described[name] = value
        elif callable(value):
            described[name] = getattr(value, "__qualname__", type(value).__qualname__)
    return described


def fingerprint_code(stage: Stage) -> dict[str, str]:
    """Return the start of the SHA-256 of the file that defines a stage; {} for our own."""
    if type(stage).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return {}
    try:
        return {"code": hash_file(Path(inspect.getfile(type(stage))))[:16]}
    except (OSError, TypeError):  # a class from an interactive session has no file
        return {}


#: (threat model, number of classes, seed) -> suite. Those built in may have keyword-only parameters
#: called as settings of an `AttackConfig`, whose values they get.
Builder = Callable[..., Suite]

DEFAULT_PGD_STEPS = 20
MARGIN_STEPS = 30


def build_suite(config: AttackConfig, threat_model: ThreatModel, num_classes: int) -> Suite:
    """Return the suite that `config` names, for a model of `num_classes` classes.

    Raises:
        UsageError: for an unknown suite, one that needs more classes, or a user's builder that does
            not return a suite.
        ImportPathError: when a user's builder cannot be imported, or raises.

    """
    builder = find_builder(config.suite)
    if not is_foreign(config.suite):
        options = {name: getattr(config, name) for name in find_options(builder)}
        return builder(threat_model, num_classes, config.seed, **options)
    try:
        suite = builder(threat_model, num_classes, config.seed)
    except Exception as error:  # code from elsewhere may raise anything
        raise ImportPathError(
            f"suite {config.suite} raised {describe_exception(error)} when it was built."
        ) from error
    if not isinstance(suite, Suite):
        raise UsageError(
            f"suite {config.suite} returned a {type(suite).__name__}: it must return an "
            "adrbench.Suite."
        )
    code = {stage.name: code for stage in suite.stages if (code := fingerprint_code(stage))}
    if code:
        suite = replace(suite, parameters={"code": code, **suite.parameters})
    if not is_import_path(config.suite):
        suite = replace(suite, name=config.suite)
    elif suite.name in SUITES or PGD_K.fullmatch(suite.name):
        raise UsageError(
            f"suite {config.suite} is called {suite.name!r}, as a built-in one is: give it another "
            "name."
        )
    return suite.bind(threat_model, num_classes, config.seed)


def find_builder(name: str) -> Builder:
    """Return the builder of the suite `name`: built in, a plugin's, or at an import path."""
    found = PGD_K.fullmatch(name)
    if found:
        return partial(pgd_suite, steps=int(found[1]))
    if name in SUITES:
        return SUITES[name][1]
    plugin = find_plugin("suites", name)
    builder = plugin.load() if plugin else load_import_path(name) if is_import_path(name) else None
    if builder is None:
        known = [*SUITES, *(plugin.name for plugin in list_plugins("suites"))]
        raise unknown_name("suite", name, [*known, "pgd-20", "pgd-K (K a number)"])
    if not callable(builder):
        raise UsageError(
            f"suite {name} is a {type(builder).__name__}: it must be a callable "
            "(threat, num_classes, seed) that returns an adrbench.Suite."
        )
    found_builder: Builder = builder
    return found_builder


def check_suite(name: str) -> None:
    """Raise UsageError unless `name` is the name of a suite; this may import it."""
    find_builder(name)


def is_foreign(name: str) -> bool:
    """Return whether the suite `name` is not a built-in one."""
    return name not in SUITES and not PGD_K.fullmatch(name)


def find_options(builder: Builder) -> list[str]:
    """Return the attack settings that a built-in suite uses: its keyword-only parameters."""
    parameters = inspect.signature(builder).parameters.values()
    own = {one.name for one in fields(AttackConfig)}
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name in own]


def pgd_suite(
    threat: ThreatModel,
    num_classes: int,
    seed: int,
    *,
    steps: int = DEFAULT_PGD_STEPS,
    alpha: float | None = None,
    restarts: int = 1,
    loss: pgd.LossName = "cross-entropy",
    name: str | None = None,
) -> Suite:
    """Return PGD as a suite; `alpha` is eps / 4 by default."""
    attack = pgd.PGD(name=name or "", steps=steps, alpha=alpha, restarts=restarts, loss=loss)
    stage = attack.bind(threat, num_classes, seed)
    return Suite(
        name=stage.name,
        stages=(stage,),
        parameters={"steps": steps, "alpha": stage.alpha, "restarts": restarts},
        loss=stage.label_loss,
    )


def cw_suite(
    threat: ThreatModel,
    num_classes: int,
    seed: int,
    *,
    alpha: float | None = None,
    restarts: int = 1,
) -> Suite:
    """Return PGD on the margin loss as a suite."""
    return pgd_suite(
        threat,
        num_classes,
        seed,
        steps=MARGIN_STEPS,
        alpha=alpha,
        restarts=restarts,
        loss="margin",
        name="cw",
    )


def fgsm_suite(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Return FGSM as a suite; it uses no random numbers."""
    stage = pgd.fgsm(threat)
    return Suite(name="fgsm", stages=(stage,), parameters={}, loss=stage.label_loss)


def clean_suite(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Return the suite without an attack."""
    return Suite(name="clean", stages=(), parameters={}, loss=None)


def _official(version: autoattack.Version, only: str | None = None) -> Builder:
    """Return the builder of an AutoAttack version, or of the single attack `only`."""

    def build(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
        names = (only,) if only else autoattack.ATTACKS[version]
        name = only or autoattack.SUITE_NAMES[version]
        runnable, left_out = autoattack.split_runnable(names, num_classes)
        if not runnable or (only and left_out):
            raise UsageError(f"{name} cannot run: {left_out[0]}")
        stages = tuple(
            autoattack.OfficialAttack(
                name=stage,
                threat=threat,
                num_classes=num_classes,
                seed=seed,
                version=version,
            )
            for stage in runnable
        )
        return Suite(
            name=name,
            stages=stages,
            parameters={
                "version": version,
                "package": describe_package(),
                "num_targets": min(autoattack.TARGET_CLASSES, num_classes - 1),
            },
            left_out=tuple(left_out),
            batch_dependent=True,
            loss=autoattack.find_loss(runnable),
            for_randomized=version == "rand",
            inspect=autoattack.check_dynamic,
            review=autoattack.review_square,
        )

    return build


PGD_K = re.compile(r"pgd-([1-9]\d*)")
PGD_K_MEANING = "PGD on cross-entropy, K steps of eps/4, random start per image"
#: name -> summary and builder. `build_suite` also accepts `pgd-K` for any K.
SUITES: dict[str, tuple[str, Builder]] = {
    "clean": ("no attack: the accuracy on unperturbed images", clean_suite),
    "fgsm": ("one step of size eps from the clean image", fgsm_suite),
    "pgd": ("pgd-20", pgd_suite),
    "cw": ("PGD on the margin loss of Carlini and Wagner, 30 steps of eps/4", cw_suite),
    "apgd-ce": ("AutoAttack's APGD on cross-entropy alone", _official("standard", "apgd-ce")),
    "apgd-t": ("AutoAttack's APGD on the targeted DLR loss alone", _official("standard", "apgd-t")),
    "fab-t": ("AutoAttack's targeted FAB alone", _official("standard", "fab-t")),
    "square": ("AutoAttack's Square alone, 5,000 queries", _official("standard", "square")),
    "autoattack": ("the official standard version: the four above", _official("standard")),
    "autoattack-plus": ("the official plus version: six attacks, 5 restarts", _official("plus")),
    "autoattack-rand": ("the official version for randomized models", _official("rand")),
}
