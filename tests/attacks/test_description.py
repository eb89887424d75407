"""What identifies an attack: attacks that differ in anything must not share a description."""

import copy
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import PGD, OfficialAttack, Suite, fgsm
from adrbench.attacks.builtin_suites import SUITES
from adrbench.attacks.description import describe_stage
from adrbench.attacks.find_suite import as_suite, bind_own, build_suite
from adrbench.attacks.pgd import cross_entropy_sum
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.runtime.hashing import hash_json

THREAT = ThreatModel(eps=0.1)


class Attack:
    """An attack of one's own, with any attributes."""

    name = "own"

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return x


class Slotted(Attack):
    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps = steps


@dataclass
class Schedule:
    steps: list[int] = field(default_factory=list)


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


DIFFERENT: dict[str, tuple[object, object]] = {
    "a list": ([1, 2], [1, 3]),
    "a tuple": ((1, 2), (1, 3)),
    "a dictionary": ({"a": 1}, {"a": 2}),
    "a set": ({1, 2}, {1, 3}),
    "a tensor": (torch.zeros(3), torch.ones(3)),
    "an array": (np.zeros(3), np.ones(3)),
    "a nested object": (Schedule([1]), Schedule([2])),
    "a lambda": (lambda x: x, lambda x: 2 * x),
    "a closure": (scaled(1.0), scaled(2.0)),
    "a partial": (partial(scaled, 1.0), partial(scaled, 2.0)),
    "weights": (linear(0), linear(1)),
    "an object without attributes": (Fraction(1, 2), Fraction(1, 3)),
    "a function": (scaled, linear),
    "none": (None, 0),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_attacks_that_differ_in_an_attribute_differ(case: str) -> None:
    one, other = (hash_json(describe_stage(Attack(value=value))) for value in DIFFERENT[case])
    assert one != other


@pytest.mark.parametrize("case", DIFFERENT)
def test_equal_attacks_have_one_description(case: str) -> None:
    value = DIFFERENT[case][0]
    first, second = Attack(value=value), Attack(value=copy.deepcopy(value))
    assert describe_stage(first) == describe_stage(second)


def test_private_attributes_and_slots_count() -> None:
    assert describe_stage(Attack(_steps=1)) != describe_stage(Attack(_steps=2))
    assert describe_stage(Slotted(1)) != describe_stage(Slotted(2))


def test_an_attack_may_refer_to_itself() -> None:
    attack = Attack()
    attack.self = attack  # type: ignore[attr-defined]
    assert describe_stage(Attack(other=attack))["other"]["self"] == "the enclosing Attack"


def test_a_threat_model_is_described_by_norm_and_eps() -> None:
    described = describe_stage(Attack(threat=THREAT))
    assert (described["norm"], described["eps"]) == ("Linf", 0.1)
    assert "threat" not in described


MODULE = """
import torch
import own_helpers

class Own:
    name = "own"

    def perturb(self, model, x, y, indices):
        return own_helpers.move(x)
"""
HELPERS = "def move(x):\n    return x + 0.1\n"


def test_the_code_of_an_attack_and_of_the_modules_it_imports_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def describe(module: str = MODULE, helpers: str = HELPERS) -> dict[str, Any]:
        (tmp_path / "own_module.py").write_text(module)
        (tmp_path / "own_helpers.py").write_text(helpers)
        for name in ("own_module", "own_helpers"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return describe_stage(importlib.import_module("own_module").Own())

    first = describe()
    assert describe() == first
    assert describe(f"# A comment.\n\n{MODULE}") == first
    assert describe(MODULE.replace("move(x)", "move(x).clone()"))["code"] != first["code"]
    assert describe(helpers=HELPERS.replace("0.1", "0.2"))["code"] != first["code"]


def test_attacks_of_an_interactive_session_differ_by_their_methods() -> None:
    def define(code: str) -> object:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(code, names)
        return names["Own"]()

    code = "class Own:\n    name = 'own'\n    def perturb(self, model, x, y, i):\n        return x"
    main = sys.modules["__main__"]
    file = vars(main).pop("__file__", None)
    try:
        first, same, other = map(define, (code, code, f"{code} + 0.1"))
        assert describe_stage(first) == describe_stage(same)
        assert describe_stage(first) != describe_stage(other)
    finally:
        if file is not None:
            main.__file__ = file


def as_named(attack: object, suite: str, **settings: Any) -> tuple[Suite, Suite]:
    """Return an attack object as a suite, and the suite that a name makes, both bound."""
    config = AttackConfig(suite=suite, **settings)
    return bind_own(as_suite(attack), THREAT, 10, 0), build_suite(config, THREAT, 10)


@pytest.mark.parametrize(
    ("attack", "suite"),
    [
        (PGD(), "pgd-20"),
        (PGD(steps=7, loss=cross_entropy_sum), "pgd-7"),
        (PGD(name="cw", steps=30, loss="margin"), "cw"),
        (PGD(alpha=0.025, seed=0), "pgd-20"),
        (fgsm(), "fgsm"),
        (fgsm(THREAT), "fgsm"),
        *((OfficialAttack(name), name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")),
    ],
)
def test_an_object_is_the_attack_of_its_name(attack: object, suite: str) -> None:
    own, named = as_named(attack, suite)
    assert own == named
    assert own.describe() == named.describe()
    assert own.loss == named.loss


def test_settings_of_an_object_are_those_of_a_named_attack() -> None:
    own, named = as_named(PGD(restarts=3, alpha=0.01), "pgd-20", restarts=3, alpha=0.01)
    assert own == named


@pytest.mark.parametrize(
    "attack",
    [
        PGD(seed=1),
        PGD(random_start=False),
        PGD(threat=ThreatModel(eps=0.2)),
        PGD(name="pgd-5"),
        OfficialAttack("apgd-ce", version="rand"),
        Suite(name="autoattack", stages=[OfficialAttack("square")]),
    ],
)
def test_an_attack_that_differs_cannot_have_the_name(attack: object) -> None:
    with pytest.raises(UsageError, match="has the name of a built-in one, from which it differs"):
        bind_own(as_suite(attack), THREAT, 10, 0)


def test_all_of_autoattack_as_objects_is_autoattack() -> None:
    stages = [OfficialAttack(name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    own, named = as_named(Suite(name="autoattack", stages=stages), "autoattack")
    assert own == named


def test_an_official_attack_needs_its_classes() -> None:
    with pytest.raises(UsageError, match="apgd-t needs at least 4 classes, but the model has 3"):
        bind_own(as_suite(OfficialAttack("apgd-t")), THREAT, 3, 0)


def test_every_built_in_suite_has_the_loss_and_the_checks_of_its_stages() -> None:
    found = {name: build_suite(AttackConfig(suite=name), THREAT, 10) for name in SUITES}
    losses = {name: getattr(suite.loss, "__name__", None) for name, suite in found.items()}
    assert losses == {
        "clean": None,
        "fgsm": "cross_entropy_sum",
        "pgd": "cross_entropy_sum",
        "cw": "margin",
        "apgd-ce": "cross_entropy_sum",
        "apgd-t": "margin",
        "fab-t": "margin",
        "square": None,
        "autoattack": "margin",
        "autoattack-plus": "margin",
        "autoattack-rand": "margin",
    }
    assert [name for name, suite in found.items() if suite.for_randomized] == ["autoattack-rand"]
    assert [name for name, suite in found.items() if suite.batch_dependent] == [
        "apgd-ce",
        "apgd-t",
        "fab-t",
        "square",
        "autoattack",
        "autoattack-plus",
        "autoattack-rand",
    ]
