"""Every registered suite on a tiny model."""

import importlib
import sys
from pathlib import Path

import pytest

from adrbench.attacks.builtin_suites import SUITES
from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.evaluation.evaluate import evaluate
from tiny import Linear, labelled_by, make_images

QUICK = ["fgsm", "pgd", "pgd-3", "cw", "apgd-ce", "apgd-t", "fab-t"]
LONG = [name for name in SUITES if name not in (*QUICK, "clean")]


THREATS = {"Linf": ThreatModel(eps=0.3), "L2": ThreatModel(norm="L2", eps=1.5)}


def build(suite: str, norm: str = "Linf", num_classes: int = 5) -> Suite:
    return build_suite(AttackConfig(suite=suite), THREATS[norm], num_classes)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    "suite", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]
)
def test_every_suite_lowers_the_accuracy_of_a_linear_model(suite: str, norm: str) -> None:
    model = Linear(classes=5, size=6)
    images = labelled_by(model, make_images(6, classes=5, size=6))
    built = build(suite, norm)
    evaluation = evaluate(model, images, built, THREATS[norm], batch_size=4)
    assert evaluation.clean_correct == 6
    assert evaluation.robust_correct < 6
    assert [stage.name for stage in evaluation.stages] == [stage.name for stage in built.stages]
    assert not evaluation.warnings


def test_pgd_is_pgd_20() -> None:
    assert build("pgd") == build("pgd-20")


def test_parameters_describe_the_attack() -> None:
    config = AttackConfig(suite="pgd-7", alpha=0.05, restarts=2)
    assert build_suite(config, THREATS["Linf"], 5).describe() == {
        "steps": 7,
        "alpha": 0.05,
        "restarts": 2,
    }
    official = build("autoattack").describe()
    assert official["version"] == "standard"
    assert official["num_targets"] == 4


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("autoatack", "did you mean autoattack"),
        ("pgd-0", "unknown suite 'pgd-0'"),
        ("pgd-K", "unknown suite 'pgd-K'"),
        ("pgd-x", "unknown suite 'pgd-x'"),
        ("pgd-1000001", "has too many steps: give pgd-K with K from 1 to 1000000"),
        (f"pgd-{'9' * 5000}", "has too many steps"),
        ("pgd-\u0663", "unknown suite"),
        ("", "unknown suite"),
    ],
)
def test_unknown_suites_are_refused(suite: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(suite)


def test_a_single_attack_that_cannot_run_is_refused() -> None:
    with pytest.raises(UsageError, match="needs at least 4 classes, but the model has 3"):
        build("apgd-t", num_classes=3)


@pytest.mark.parametrize("name", ["", " ", "a\nb", 3])
def test_a_name_must_be_printable(name: object) -> None:
    with pytest.raises(UsageError, match="is not a valid name for a suite"):
        Suite(name=name, stages=[])  # type: ignore[arg-type]


def test_a_change_of_the_code_of_an_attack_makes_another_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = (
        "import adrbench\n"
        "class Nothing:\n"
        "    name = 'nothing'\n"
        "    def perturb(self, model, x, y, indices):\n"
        "        return x\n"
        "def suite(threat, num_classes, seed):\n"
        "    return adrbench.Suite(name='mine', stages=[Nothing()])\n"
    )
    module = Path("own_attack.py")

    def parameters(text: str) -> object:
        module.write_text(text)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sys.modules.pop("own_attack", None)
        importlib.invalidate_caches()
        return build("own_attack:suite").describe()

    first = parameters(code)
    assert parameters(code) == first
    assert parameters(code.replace("return x\n", "return x + 0.01\n")) != first
