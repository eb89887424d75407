"""The official AutoAttack as stages of a suite: the same outcomes, and no side effects."""

import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from adrbench.attacks.autoattack import (
    ATTACKS,
    OfficialAttack,
    Version,
    check_dynamic,
    review_square,
    split_runnable,
)
from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.pgd import LabelLoss, cross_entropy_sum, margin
from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_dataset, to_float
from adrbench.evaluation.evaluate import Evaluation, evaluate
from tiny import Linear, labelled_by, make_images, train_small_net


def run(
    model: nn.Module, images: Images, classes: int, *, threat_model: ThreatModel, **settings: Any
) -> Evaluation:
    config = AttackConfig(**settings)
    suite = build_suite(config, threat_model, classes)
    return evaluate(model, images, suite, threat_model, batch_size=config.batch_size)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Images]:
    """Return a small net trained on digits, and the first 12 test images."""
    dataset = load_dataset("digits", data_dir=Path("unused"))
    return train_small_net(dataset.train, classes=10), dataset.test.first(12)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps", "n"), [("Linf", 0.08, 12), ("L2", 0.45, 6)])
def test_outcomes_equal_those_of_the_official_run(
    norm: str, eps: float, n: int, digits: tuple[nn.Module, Images]
) -> None:
    model, images = digits[0], digits[1].first(n)
    ours = run(
        model,
        images,
        10,
        suite="autoattack",
        threat_model=ThreatModel(norm=norm, eps=eps),
        batch_size=5,
        seed=3,
    )
    official = AutoAttack(model.requires_grad_(False), norm=norm, eps=eps, seed=3)
    x, y = to_float(images.pixels), images.labels
    x_adv, _ = official.run_standard_evaluation(x, y, batch_size=5)
    with torch.no_grad():
        theirs = model(x_adv).argmax(1) == y
    assert torch.equal(ours.robust, theirs)
    survivors = [stage.survivors for stage in ours.stages]
    assert ours.clean_correct > survivors[0] >= survivors[-1] > 0, (
        "each stage should attack some images"
    )
    assert [stage.name for stage in ours.stages] == list(ATTACKS["standard"])


@pytest.mark.parametrize("suite", ["apgd-ce", "apgd-t", "fab-t"])
def test_each_attack_alone_lowers_the_accuracy(
    suite: str, digits: tuple[nn.Module, Images]
) -> None:
    model, images = digits
    evaluation = run(model, images.first(8), 10, suite=suite, threat_model=ThreatModel(eps=0.1))
    assert evaluation.robust_correct < evaluation.clean_correct
    assert [stage.name for stage in evaluation.stages] == [suite]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (2, ["apgd-ce", "fab", "square"]),
        (3, ["apgd-ce", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (200, ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
)
def test_attacks_that_need_more_classes_are_left_out(classes: int, expected: list[str]) -> None:
    runnable, left_out = split_runnable(ATTACKS["standard"], classes)
    assert runnable == expected
    assert len(left_out) == len(set(ATTACKS["standard"]) - set(expected))


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["autoattack", "autoattack-plus"])
@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_suites_run_with_any_number_of_classes(classes: int, suite: str) -> None:
    model = Linear(classes=classes)
    images = labelled_by(model, make_images(6, classes=classes))
    evaluation = run(model, images, classes, suite=suite, threat_model=ThreatModel(eps=0.3))
    assert evaluation.robust_correct == 0
    left_out = [text for text in evaluation.warnings if "was skipped" in text]
    assert len(left_out) == {2: 2, 3: 1}.get(classes, 0) + (classes == 2 and "plus" in suite)


def test_side_effects_are_undone(digits: tuple[nn.Module, Images]) -> None:
    model, images = digits
    model.requires_grad_(True).train().zero_grad()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        return None

    before = torch.get_rng_state()
    call_counts = dict(checks.funcs)
    previous_trace = sys.gettrace()
    sys.settrace(trace)
    try:
        run(model, images.first(4), 10, suite="fab-t", threat_model=ThreatModel(eps=0.1))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(previous_trace)
    assert torch.equal(before, torch.get_rng_state())
    assert checks.funcs == call_counts
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training
    model.eval()


class Dynamic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Linear()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.inner(z).sum(), z)
        logits: Tensor = self.inner(x + 0 * gradient)
        return logits


class Masked(nn.Module):
    """Rounds the logits, so that gradients are zero almost everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Linear(classes=4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(10 * self.inner(x))


def test_a_gradient_in_the_forward_pass_is_a_warning() -> None:
    x = to_float(make_images(8).pixels)
    with pytest.warns(ReliabilityWarning, match="gradients inside its forward pass"):
        check_dynamic(Dynamic(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_dynamic(Linear(), x)


@pytest.mark.parametrize(
    ("suite", "loss"),
    [
        ("apgd-ce", cross_entropy_sum),
        ("apgd-t", margin),
        ("fab-t", margin),
        ("square", None),
        ("autoattack", margin),
        ("autoattack-plus", margin),
        ("autoattack-rand", margin),
    ],
)
def test_a_suite_is_checked_with_a_loss_that_it_relies_on(
    suite: str, loss: LabelLoss | None
) -> None:
    """The cross-entropy may saturate where a suite also has an attack on differences of logits."""
    assert build_suite(AttackConfig(suite=suite), ThreatModel(eps=0.1), 10).loss is loss


def test_zero_gradients_are_a_warning_of_the_evaluation() -> None:
    model = Masked()
    images = labelled_by(model, make_images(8))
    evaluation = run(model, images, 4, suite="apgd-t", threat_model=ThreatModel(eps=0.1))
    assert any("gradient of exactly zero" in text for text in evaluation.warnings)


def test_success_of_square_after_white_box_attacks_is_a_warning() -> None:
    with pytest.warns(ReliabilityWarning, match=r"Square, which needs no gradients, .* by 10.00%"):
        review_square({"clean": 0.9, "apgd-ce": 0.5, "square": 0.4})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        review_square({"clean": 0.9, "apgd-ce": 0.5, "square": 0.499})


class Sure(nn.Module):
    """A model that no attack fools; it counts its passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return 1e-3 * x.flatten(1)[:, :5] + torch.tensor([50.0, 4.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("standard", "apgd-ce"),
        ("standard", "apgd-t"),
        ("standard", "fab-t"),
        ("plus", "apgd-dlr"),
        ("plus", "fab"),
        ("rand", "apgd-ce"),
        pytest.param("standard", "square", marks=pytest.mark.slow),
    ],
)
def test_the_stated_number_of_passes_is_that_of_an_attack_without_success(
    version: Version, name: str
) -> None:
    model = Sure()
    attack = OfficialAttack(
        name=name, version=version, threat=ThreatModel(eps=0.01), num_classes=5, seed=0
    )
    x, y = torch.rand(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)
    attack.perturb(model, x, y, torch.arange(2))
    assert model.passes == attack.num_passes
