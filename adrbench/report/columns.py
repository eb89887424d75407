"""The columns of every table, and the column of each attack in a table's records."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from adrbench.config.declare import format_eps
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.tables import Cell, Column


def _detail(key: str, label: str, align: Literal["left", "right"] = "left") -> Column:
    return Column(key=key, label=label, role="detail", align=align)


def _value(key: str, label: str, *, suite: str = "", decimals: int = 2) -> Column:
    return Column(key=key, label=label, role="value", align="right", suite=suite, decimals=decimals)


ARCH = Column(key="arch", label="arch")
METHOD = Column(key="method", label="method", carries_footnotes=True)
AGAINST = Column(key="against", label="against")
CHECKPOINT = Column(key="checkpoint", label="epoch")
SEEDS = _detail("seeds", "seeds", align="right")
N = _detail("n", "n", align="right")
EXTRA_DATA = _detail("extra_data", "extra")
SOURCE = _detail("source", "source")
BEST_EPOCH = _detail("best_epoch", "best epoch")
CHOSEN_ON = Column(key="chosen_on", label="chosen on")
SUITE = Column(key="suite", label="suite")
DATASET = Column(key="dataset", label="dataset")
PRECISION = Column(key="precision", label="precision")
DEVICE = Column(key="device", label="device")
SECONDS = _value("seconds", "seconds", decimals=1)
CLEAN = _value("clean", "clean")
RANK = _value("rank", "rank")

#: The columns on the left of the robust-accuracy table; one per attack and the rank follow.
ACCURACY = (ARCH, METHOD, CHECKPOINT, SEEDS, N, CLEAN)
#: The columns on the left of the table by radius; one per radius follows.
RADIUS = (ARCH, METHOD, CHECKPOINT, SUITE, SEEDS, N, CLEAN)
OVERFITTING = (
    ARCH,
    METHOD,
    SEEDS,
    CHOSEN_ON,
    BEST_EPOCH,
    SUITE,
    _value("best", "best"),
    _value("last", "last"),
    _value("gap", "gap"),
)
ROBUSTBENCH = (
    _value("rank", "rank", decimals=0),
    _value("rank_in_arch", "in arch", decimals=0),
    Column(key="method", label="model", carries_footnotes=True),
    CLEAN,
    _value("robust", "robust", suite="autoattack"),
    EXTRA_DATA,
    SOURCE,
)
#: The columns of a leaderboard without our results.
LEADERBOARD = (
    _value("rank", "rank", decimals=0),
    Column(key="method", label="model", carries_footnotes=True),
    _detail("arch", "arch"),
    CLEAN,
    _value("robust", "autoattack", suite="autoattack"),
    EXTRA_DATA,
    _detail("source", "venue"),
)
PAPER = (
    METHOD,
    EXTRA_DATA,
    _value("clean", "paper clean"),
    _value("robust", "paper AA", suite="autoattack (torchattacks 3.3.0)"),
)
PAPER_OURS = (
    _value("our_clean", "our clean"),
    _value("our_robust", "our AA", suite="autoattack"),
)
PAIRED = (
    ARCH,
    METHOD,
    AGAINST,
    CHECKPOINT,
    SUITE,
    SEEDS,
    N,
    replace(_value("difference", "difference", decimals=1), annotation="interval"),
    _value("p", "p (m)"),
    _value("detectable", "detectable", decimals=1),
    replace(_value("robust", "robust"), annotation=None),
    replace(_value("reference", "reference"), annotation=None),
)
TRAINING = (
    DATASET,
    ARCH,
    METHOD,
    PRECISION,
    DEVICE,
    _detail("runs", "runs", align="right"),
    _value("num_train", "images", decimals=0),
    _value("epochs", "epochs", decimals=0),
    SECONDS,
    _value("images_per_second", "images/s", decimals=0),
)
EVALUATION = (
    DATASET,
    ARCH,
    SUITE,
    DEVICE,
    N,
    _detail("processes", "processes", align="right"),
    _value("evaluations", "evaluations", decimals=0),
    SECONDS,
)

#: The order of suite columns: single attacks, weak before strong, then the ensembles.
SUITES = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "other")
ENSEMBLES = ("autoattack-rand", "autoattack", "autoattack-plus")


def identity(group: SeedGroup) -> dict[str, Cell]:
    """Return the cells that identify the model of a row."""
    return {
        ARCH.key: group.identity.arch,
        METHOD.key: group.method,
        SEEDS.key: len(group.seeds),
        N.key: group.identity.n,
    }


def attack_columns(groups: Iterable[SeedGroup]) -> dict[Attack, Column]:
    """Return a column per attack in `groups`, in table order."""
    labels = label_attacks(attack for group in groups for attack in group.attacks)
    return {a: _value(f"robust {label}", label, suite=label) for a, label in labels.items()}


def label_attacks(attacks: Iterable[Attack]) -> dict[Attack, str]:
    """Return a label for each attack, in table order.

    The label of a suite is its name. Where a suite was run with several sets of parameters, labels
    add those that differ, with all digits if they would be equal otherwise.
    """
    attacks = sorted(set(attacks), key=_attack_order)
    parameters = {attack: json.loads(attack.parameters) for attack in attacks}
    by_suite: dict[str, list[dict[str, Any]]] = {}
    for attack in attacks:
        by_suite.setdefault(attack.suite, []).append(parameters[attack])
    differing = {suite: _differing(siblings) for suite, siblings in by_suite.items()}
    shown = {a: {name: parameters[a].get(name) for name in differing[a.suite]} for a in attacks}
    labels = {attack: _label(attack.suite, shown[attack], _parameter) for attack in attacks}
    counts = Counter(labels.values())
    return {
        attack: label if counts[label] == 1 else _label(attack.suite, shown[attack], json.dumps)
        for attack, label in labels.items()
    }


def radius_column(eps: float) -> Column:
    """Return the column of the robust accuracy at `eps`, a fraction of 1."""
    label = format_eps(eps)
    return replace(_value(f"robust {label}", label), eps=eps)


def _label(suite: str, shown: Mapping[str, Any], format_value: Callable[[Any], str]) -> str:
    return suite + "".join(f" {name}={format_value(value)}" for name, value in shown.items())


def _differing(siblings: list[dict[str, Any]]) -> list[str]:
    """Return the names of the parameters that are not the same in all of `siblings`."""
    return [
        name
        for name in sorted(set().union(*siblings))
        if len({json.dumps(one.get(name), sort_keys=True) for one in siblings}) > 1
    ]


def _parameter(value: object) -> str:
    if isinstance(value, float):
        return format_eps(value)
    return "-" if value is None else str(value)


def _attack_order(attack: Attack) -> tuple[int, int, str, str]:
    suite = attack.suite
    if suite in ENSEMBLES:
        return (len(SUITES) + ENSEMBLES.index(suite), 0, suite, attack.parameters)
    family, _, steps = suite.partition("-")
    if family == "pgd":
        # By length, then by digits: the suffix of a third-party suite need not be a number.
        return (SUITES.index("pgd"), len(steps), suite, attack.parameters)
    return (SUITES.index(suite if suite in SUITES else "other"), 0, suite, attack.parameters)
