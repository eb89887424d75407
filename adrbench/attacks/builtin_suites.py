"""The built-in suites, and the table of their names."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial

from adrbench.attacks import autoattack, pgd
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError

#: (threat model, number of classes, seed) -> suite. Those built in may have keyword-only parameters
#: called as settings of an `AttackConfig`, whose values they get.
Builder = Callable[..., Suite]

MARGIN_STEPS = 30


def pgd_suite(
    threat: ThreatModel,
    num_classes: int,
    seed: int,
    *,
    steps: int = pgd.DEFAULT_STEPS,
    alpha: float | None = None,
    restarts: int = 1,
    loss: pgd.LossName = "cross-entropy",
    name: str = "",
) -> Suite:
    """Return PGD as a suite; `alpha` is eps / 4 by default."""
    attack = pgd.PGD(name=name, steps=steps, alpha=alpha, restarts=restarts, loss=loss)
    stage = attack.bind(threat, num_classes, seed)
    return Suite(
        name=stage.name,
        stages=(stage,),
        parameters={"steps": steps, "alpha": stage.alpha, "restarts": restarts},
    )


#: PGD on the margin loss of Carlini and Wagner.
cw_suite = partial(pgd_suite, steps=MARGIN_STEPS, loss="margin", name="cw")


def fgsm_suite(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Return FGSM as a suite; it uses no random numbers."""
    return Suite(name="fgsm", stages=(pgd.fgsm().bind(threat, num_classes, seed),), parameters={})


def clean_suite(threat: ThreatModel, num_classes: int, seed: int) -> Suite:
    """Return the suite without an attack."""
    return Suite(name="clean", stages=(), parameters={})


def official_suite(
    threat: ThreatModel,
    num_classes: int,
    seed: int,
    *,
    version: autoattack.Version = "standard",
    only: str | None = None,
) -> Suite:
    """Return a version of AutoAttack, or only one of its attacks."""
    names = (only,) if only else autoattack.ATTACKS[version]
    name = only or autoattack.SUITE_NAMES[version]
    runnable, left_out = autoattack.split_runnable(names, num_classes)
    if not runnable or (only and left_out):
        raise UsageError(f"{name} cannot run: {left_out[0]}")
    stages = [
        autoattack.OfficialAttack(one, version=version).bind(threat, num_classes, seed)
        for one in runnable
    ]
    return Suite(
        name=name,
        stages=stages,
        parameters=stages[0].describe_parameters(),
        left_out=tuple(left_out),
    )


def _only(name: str) -> Builder:
    return partial(official_suite, only=name)


PGD_K = re.compile(r"pgd-([1-9][0-9]*)")
#: The largest K: more steps would take days on a small network.
MOST_STEPS = 1_000_000
PGD_K_MEANING = "PGD on cross-entropy, K steps of eps/4, random start per image"
#: name -> summary and builder. `find_builtin` also accepts `pgd-K`.
SUITES: dict[str, tuple[str, Builder]] = {
    "clean": ("no attack: the accuracy on unperturbed images", clean_suite),
    "fgsm": ("one step of size eps from the clean image", fgsm_suite),
    "pgd": ("pgd-20", pgd_suite),
    "cw": ("PGD on the margin loss of Carlini and Wagner, 30 steps of eps/4", cw_suite),
    "apgd-ce": ("AutoAttack's APGD on cross-entropy alone", _only("apgd-ce")),
    "apgd-t": ("AutoAttack's APGD on the targeted DLR loss alone", _only("apgd-t")),
    "fab-t": ("AutoAttack's targeted FAB alone", _only("fab-t")),
    "square": ("AutoAttack's Square alone, 5,000 queries", _only("square")),
    "autoattack": ("the official standard version: the four above", official_suite),
    "autoattack-plus": (
        "the official plus version: six attacks, 5 restarts",
        partial(official_suite, version="plus"),
    ),
    "autoattack-rand": (
        "the official version for randomized models",
        partial(official_suite, version="rand"),
    ),
}


def find_builtin(name: str) -> Builder | None:
    """Return the builder of the built-in suite `name`, None if there is none.

    Raises:
        UsageError: for `pgd-K` with too large a K.

    """
    if name in SUITES:
        return SUITES[name][1]
    found = PGD_K.fullmatch(name)
    if not found:
        return None
    if len(found[1]) > len(str(MOST_STEPS)) or int(found[1]) > MOST_STEPS:
        raise UsageError(
            f"suite {name:.40} has too many steps: give pgd-K with K from 1 to {MOST_STEPS}, "
            "such as pgd-20."
        )
    return partial(pgd_suite, steps=int(found[1]))


def find_options(builder: Builder) -> list[str]:
    """Return the attack settings that a built-in suite uses: its keyword-only parameters."""
    parameters = inspect.signature(builder).parameters.values()
    own = {one.name for one in fields(AttackConfig)}
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name in own]
