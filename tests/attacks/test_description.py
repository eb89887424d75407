"""What identifies an attack: attacks that differ in anything must not share a description."""

import cmath
import copy
import importlib
import math
import os
import random
import runpy
import subprocess
import sys
from collections import OrderedDict, deque
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
from adrbench.registry import UserCodeError
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


def factory(shift: float) -> type:
    class Made:
        def move(self, x: Tensor) -> Tensor:
            return x + shift

    return Made


def conditional(is_first: bool) -> Callable[[Tensor], Tensor]:
    if is_first:

        def move(x: Tensor) -> Tensor:
            return x + 1
    else:

        def move(x: Tensor) -> Tensor:
            return x + 2

    return move


def with_attribute(value: int) -> Callable[[], None]:
    def function() -> None:
        pass

    function.value = value  # type: ignore[attr-defined]
    return function


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
    "a generator of torch": (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    "a generator of NumPy": (np.random.default_rng(0), np.random.default_rng(1)),
    "a generator of Python": (random.Random(0), random.Random(1)),
    "a deque": (deque([torch.zeros(2)]), deque([torch.ones(2)])),
    "keys": ({1: 2}, {"1": 2}),
    "bytes": (b"a", b"b"),
    "a bound built-in": ({1: 2}.get, {1: 3}.get),
    "functions of C": (math.sqrt, cmath.sqrt),
    "a method": (Fraction(1, 2).limit_denominator, Fraction(1, 3).limit_denominator),
    "an attribute of a function": (with_attribute(1), with_attribute(2)),
    "the mode of a module": (nn.Dropout(0.5), nn.Dropout(0.5).eval()),
    "modules without weights": (nn.Sequential(nn.ReLU()), nn.Sequential(nn.SiLU())),
    "an object made by a factory": (factory(1.0)(), factory(2.0)()),
    "functions of one name": (conditional(True), conditional(False)),
    "a class": (factory(1.0), factory(2.0)),
    "complex numbers": (np.complex64(1j), np.complex64(2j)),
    "dates": (np.datetime64("2026-01-01"), np.datetime64("2026-01-02")),
    "threat models": (ThreatModel(eps=0.1), ThreatModel(eps=0.2)),
    "an array of objects": (np.array([Schedule([1])]), np.array([Schedule([2])])),
    "a mapping": (OrderedDict(a=1), OrderedDict(a=2)),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_attacks_that_differ_in_an_attribute_differ(case: str) -> None:
    one, other = (hash_json(describe_stage(Attack(value=value))) for value in DIFFERENT[case])
    assert one != other


@pytest.mark.parametrize("case", sorted(DIFFERENT.keys() - {"a bound built-in"}))
def test_equal_attacks_have_one_description(case: str) -> None:
    value = DIFFERENT[case][0]
    first, second = Attack(value=value), Attack(value=copy.deepcopy(value))
    assert describe_stage(first) == describe_stage(second)


def test_descriptions_are_the_same_in_every_process() -> None:
    """Hashes of strings, addresses and the order of sets differ from process to process."""
    code = (
        "import json, math, threading, numpy as np, tests_of_description as t\n"
        "from collections import deque\n"
        "from adrbench.attacks.description import describe_stage\n"
        "values = [{'a', 'b', 'c'}, frozenset('xyz'), t.scaled(2.0), t.factory(1.0), math.nan,\n"
        "          threading.Lock(), math, [{'a', 'b'}], t.Attack, object(),\n"
        "          np.array([{'a', 'b'}, object()]), deque([{'a', 'b'}])]\n"
        "print(json.dumps([describe_stage(t.Attack(value=value)) for value in values]))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code.replace("tests_of_description", Path(__file__).stem)],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_value_that_cannot_be_described_is_one_sentence() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(UserCodeError, match=r"^attack own raised RecursionError .* described"):
        describe_stage(Attack(value=deep))


def test_shared_values_are_described_once_and_long_ones_by_a_fingerprint() -> None:
    shared: list[Any] = [1]
    for _ in range(40):
        shared = [shared, shared]
    assert len(str(describe_stage(Attack(value=shared, long="x" * 10_000)))) < 1_000


def test_private_attributes_and_slots_count() -> None:
    assert describe_stage(Attack(_steps=1)) != describe_stage(Attack(_steps=2))
    assert describe_stage(Slotted(1)) != describe_stage(Slotted(2))


def test_an_attack_may_refer_to_itself() -> None:
    attack = Attack()
    attack.self = attack  # type: ignore[attr-defined]
    assert describe_stage(Attack(other=attack))["other"]["self"].startswith("#")


def test_a_threat_model_is_described_by_norm_and_eps() -> None:
    described = describe_stage(Attack(threat=THREAT, eps=1.0))
    assert described["threat"] == {"class": "ThreatModel", "norm": "Linf", "eps": 0.1}
    assert described["eps"] == 1.0


MODULE = """
import own_helpers
from own_constants import SIZE

class Own:
    name = "own"

    def perturb(self, model, x, y, indices):
        return own_helpers.move(SIZE * x)
"""
HELPERS = "def move(x):\n    return x + 0.1\n"


def test_the_code_of_an_attack_and_of_the_modules_it_imports_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def describe(
        module: str = MODULE, helpers: str = HELPERS, constants: str = "SIZE = 1"
    ) -> dict[str, Any]:
        texts = {"own_module": module, "own_helpers": helpers, "own_constants": constants}
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return describe_stage(importlib.import_module("own_module").Own())

    first = describe()
    assert describe() == first
    assert describe(f"# A comment.\n\n{MODULE}") == first
    assert describe(MODULE.replace("SIZE * x)", "SIZE * x).clone()"))["code"] != first["code"]
    assert describe(helpers=HELPERS.replace("0.1", "0.2"))["code"] != first["code"]
    assert describe(constants="SIZE = 2")["code"] != first["code"]


def test_a_module_counts_before_it_is_imported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "later_module.py").write_text(
        "class Own:\n"
        "    name = 'own'\n"
        "    def perturb(self, model, x, y, indices):\n"
        "        from later_helper import move\n"
        "        return move(x)\n"
    )
    (tmp_path / "later_helper.py").write_text(HELPERS)
    attack = importlib.import_module("later_module").Own()
    before = describe_stage(attack)
    attack.perturb(None, torch.zeros(1), None, None)
    assert "later_helper" in sys.modules
    assert describe_stage(attack) == before
    (tmp_path / "later_helper.py").write_text(HELPERS.replace("0.1", "0.25"))
    assert describe_stage(attack) != before


def test_attacks_of_code_that_was_run_without_being_imported_differ(tmp_path: Path) -> None:
    def run(step: float) -> object:
        path = tmp_path / "attack.py"
        path.write_text(
            "class Own:\n"
            "    name = 'own'\n"
            f"    def perturb(self, model, x, y, indices):\n        return x + {step}\n"
        )
        return runpy.run_path(str(path))["Own"]()

    assert describe_stage(run(0.1)) == describe_stage(run(0.1))
    assert describe_stage(run(0.1)) != describe_stage(run(0.2))


def test_the_order_of_stages_counts() -> None:
    stages = [PGD(steps=1), PGD(steps=2)]
    one, other = (Suite(name="two", stages=order) for order in (stages, stages[::-1]))
    assert hash_json(one.describe()) != hash_json(other.describe())


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"label_loss": "margin"}, "label_loss of own is 'margin'"),
        ({"num_passes": "many"}, "num_passes of own is 'many'"),
        ({"describe_parameters": lambda: {"value": object()}}, "own raised TypeError"),
        ({"bind": lambda *arguments: None}, "bind of own returned a NoneType"),
    ],
)
def test_an_optional_attribute_that_is_not_usable_is_one_sentence(
    attributes: dict[str, object], words: str
) -> None:
    with pytest.raises(UserCodeError, match=words):
        as_suite(Attack(**attributes)).bind(THREAT, 10, 0).describe()


def test_attacks_of_an_interactive_session_differ_by_their_methods() -> None:
    def define(code: str) -> object:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(code, names)
        return names["Own"]()

    code = "class Own:\n    name = 'own'\n    def perturb(self, model, x, y, i):\n        return x"
    main = sys.modules["__main__"]
    file = vars(main).pop("__file__", None)
    try:
        first = describe_stage(define(code))
        assert describe_stage(define(code)) == first
        for changed in (
            f"{code} + 0.1",
            code.replace("x, y, i):", "x, y, i, steps=1):"),
            code.replace("    name", "    steps = 1\n    name"),
        ):
            assert describe_stage(define(changed)) != first
        used = "SIZE = 0\ndef move(x): return x\n" + code.replace("return x", "return move(SIZE)")
        before = describe_stage(define(used))
        for old, new in (("SIZE = 0", "SIZE = 1"), ("): return x\n", "): return -x\n")):
            assert describe_stage(define(used.replace(old, new))) != before
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
        PGD(name="pgd-20", random_start=False),
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


@dataclass
class Scaled:
    """A loss that cannot be hashed, as instances of dataclasses cannot by default."""

    factor: float = 2.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.factor * cross_entropy_sum(logits, labels)


def test_the_common_loss_of_stages_need_not_be_hashable() -> None:
    stages = [PGD(steps=steps, loss=Scaled()) for steps in (1, 2)]
    assert Suite(name="scaled", stages=stages).loss == Scaled()


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
