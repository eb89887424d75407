"""Suites: named sequences of attacks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from adrbench.attacks import autoattack, pgd
from adrbench.attacks.autoattack_package import describe_package
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, unknown_name


class Stage(Protocol):
    """One attack of a suite."""

    @property
    def name(self) -> str:
        """The attack's name in records and tables."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return perturbed images, (N, C, H, W), for the images at `indices` of the test set."""


def _nothing_to_inspect(model: nn.Module, x: Tensor) -> None:
    pass


def _nothing_to_review(accuracies: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Stages that run in order, each on the survivors of the previous ones.

    `loss` is the one that its gradient attacks ascend, None if it has none: the model is checked
    before the attack for usable gradients of that loss, and for outputs that vary unless the suite
    is `for_randomized` models. `inspect` may warn about more, from a few images (N, C, H, W), and
    `review` about the accuracies after the attack. Outcomes of a `batch_dependent` suite are
    reproducible only at the same batch size.
    """

    name: str
    stages: tuple[Stage, ...]
    parameters: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    batch_dependent: bool = False
    loss: pgd.LabelLoss | None = pgd.margin
    for_randomized: bool = False
    inspect: Callable[[nn.Module, Tensor], None] = field(default=_nothing_to_inspect)
    review: Callable[[Mapping[str, float]], None] = field(default=_nothing_to_review)


#: (settings, threat model, number of classes) -> suite.
Builder = Callable[[AttackConfig, ThreatModel, int], Suite]

DEFAULT_PGD_STEPS = 20
MARGIN_STEPS = 30


def build_suite(config: AttackConfig, threat_model: ThreatModel, num_classes: int) -> Suite:
    """Return the suite that `config` names, for a model of `num_classes` classes.

    Raises:
        UsageError: for an unknown suite, or one that needs more classes.

    """
    check_suite(config.suite)
    found = PGD_K.fullmatch(config.suite)
    if found:
        return _pgd(config, threat_model, steps=int(found[1]))
    return SUITES[config.suite][1](config, threat_model, num_classes)


def check_suite(name: str) -> None:
    """Raise UsageError unless `name` is that of a suite."""
    if not PGD_K.fullmatch(name) and name not in SUITES:
        raise unknown_name("suite", name, [*SUITES, "pgd-20", "pgd-K (K a number)"])


def _pgd(
    config: AttackConfig,
    threat_model: ThreatModel,
    num_classes: int = 0,
    *,
    steps: int = DEFAULT_PGD_STEPS,
    loss: pgd.LabelLoss = pgd.cross_entropy_sum,
    name: str | None = None,
) -> Suite:
    name = name or f"pgd-{steps}"
    alpha = config.alpha if config.alpha is not None else threat_model.eps / 4
    stage = pgd.PGD(
        name=name,
        threat=threat_model,
        steps=steps,
        alpha=alpha,
        restarts=config.restarts,
        loss=loss,
        seed=config.seed,
    )
    parameters = {"steps": steps, "alpha": alpha, "restarts": config.restarts}
    return Suite(name=name, stages=(stage,), parameters=parameters, loss=loss)


def _margin(config: AttackConfig, threat_model: ThreatModel, num_classes: int) -> Suite:
    return _pgd(config, threat_model, steps=MARGIN_STEPS, loss=pgd.margin, name="cw")


def _fgsm(config: AttackConfig, threat_model: ThreatModel, num_classes: int) -> Suite:
    stage = pgd.fgsm(threat_model)
    return Suite(name="fgsm", stages=(stage,), parameters={}, loss=stage.loss)


def _official(version: autoattack.Version, only: str | None = None) -> Builder:
    """Return the builder of an AutoAttack version, or of the single attack `only`."""

    def build(config: AttackConfig, threat_model: ThreatModel, num_classes: int) -> Suite:
        names = (only,) if only else autoattack.ATTACKS[version]
        runnable, left_out = autoattack.split_runnable(names, num_classes)
        if not runnable or (only and left_out):
            raise UsageError(f"{config.suite} cannot run: {left_out[0]}")
        stages = tuple(
            autoattack.OfficialAttack(
                name=name,
                threat=threat_model,
                num_classes=num_classes,
                seed=config.seed,
                version=version,
            )
            for name in runnable
        )

        return Suite(
            name=config.suite,
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
    "fgsm": ("one step of size eps from the image itself", _fgsm),
    "pgd": ("pgd-20", _pgd),
    "cw": ("PGD on the margin loss of Carlini and Wagner, 30 steps of eps/4", _margin),
    "apgd-ce": ("AutoAttack's APGD on cross-entropy alone", _official("standard", "apgd-ce")),
    "apgd-t": ("AutoAttack's APGD on the targeted DLR loss alone", _official("standard", "apgd-t")),
    "fab-t": ("AutoAttack's targeted FAB alone", _official("standard", "fab-t")),
    "square": ("AutoAttack's Square alone, 5,000 queries", _official("standard", "square")),
    "autoattack": ("the official standard version: the four above", _official("standard")),
    "autoattack-plus": ("the official plus version: six attacks, 5 restarts", _official("plus")),
    "autoattack-rand": ("the official version for randomized models", _official("rand")),
}
