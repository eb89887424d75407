"""Before any suite, a model is checked on a few images for what makes attacks fail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.predictions import is_correct
from adrbench.checkpoints.third_party import load_third_party
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_dataset, load_split, to_float
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.reliability import assess_reliability
from adrbench.models.architectures import build_model
from adrbench.models.frozen import freeze
from adrbench.models.modes import without_parameter_gradients
from adrbench.runtime.arithmetic import full_precision
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.process_group import SingleProcess
from killed_store import KilledAfter
from tiny import train_small_net

THREATS = {"Linf": ThreatModel(eps=0.1), "L2": ThreatModel(norm="L2", eps=0.5)}
ZERO, FULL = "gradient of exactly zero", "an attack with the full pixel range"
VARYING, SOFTMAX = "differ from one pass to the next", "look like probabilities"


@dataclass(frozen=True)
class Digits:
    """A small net trained on digits, robust enough to have survivors, and test images."""

    model: nn.Module
    images: Images


@pytest.fixture(scope="module")
def digits() -> Digits:
    dataset = load_dataset("digits", data_dir=Path("unused"))
    return Digits(train_small_net(dataset.train, classes=10), dataset.test.first(40))


def unchanged(x: Tensor) -> Tensor:
    return x


class Wrapped(nn.Module):
    """A model between a function of the pixels and one of the logits."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = unchanged,
        after: Callable[[Tensor], Tensor] = unchanged,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


def quantized(model: nn.Module) -> nn.Module:
    return Wrapped(model, before=lambda x: (16 * x).round() / 16)


def scaled(model: nn.Module) -> nn.Module:
    return Wrapped(model, after=lambda logits: 1e4 * logits)


def softmax(model: nn.Module) -> nn.Module:
    return Wrapped(model, after=lambda logits: logits.softmax(1))


def noisy(model: nn.Module) -> nn.Module:
    return Wrapped(model, after=lambda logits: logits + 0.1 * torch.randn_like(logits))


def nan_gradients(model: nn.Module) -> nn.Module:
    """Return a model with NaN for a gradient: that of a square root at 0, infinity, times 0."""
    return Wrapped(model, after=lambda logits: logits + (0 * logits).sqrt())


def constant(model: nn.Module) -> nn.Module:
    return Wrapped(model, before=torch.zeros_like)


def run(
    model: nn.Module, images: Images, suite: str = "pgd", *, norm: str = "Linf", **more: object
) -> Evaluation:
    built = build_suite(AttackConfig(suite=suite), THREATS[norm], 10)
    return evaluate(model, images, built, THREATS[norm], batch_size=15, **more)  # type: ignore[arg-type]


def assess(model: nn.Module, images: Images, suite: str, norm: str) -> tuple[str, ...]:
    """Return what the check before the attack finds, as `evaluate` calls it."""
    x = to_float(images.pixels)
    with without_parameter_gradients(model), full_precision():
        with torch.no_grad():
            clean = is_correct(model(x), images.labels)
        texts = assess_reliability(
            model,
            attacked=freeze(model, x, (IMAGE_FORMAT,)).model,
            images=images,
            clean=clean,
            suite=build_suite(AttackConfig(suite=suite), THREATS[norm], 10),
            threat=THREATS[norm],
        )
    return tuple(texts)


def findings(texts: Iterable[str]) -> set[str]:
    known = (ZERO, FULL, VARYING, SOFTMAX)
    return {name for name in known for text in texts if name in text}


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    ("change", "suite", "expected"),
    [
        (unchanged, "pgd", set()),
        (unchanged, "fgsm", set()),
        (unchanged, "cw", set()),
        (unchanged, "apgd-ce", set()),
        (unchanged, "apgd-t", set()),
        (quantized, "pgd", {ZERO, FULL}),
        (quantized, "fgsm", {ZERO, FULL}),
        (quantized, "cw", {ZERO, FULL}),
        (quantized, "apgd-ce", {ZERO, FULL}),
        (quantized, "apgd-t", {ZERO, FULL}),
        (scaled, "pgd", {ZERO, FULL}),
        (scaled, "apgd-ce", {ZERO, FULL}),
        (scaled, "cw", set()),
        (scaled, "apgd-t", set()),
        (nan_gradients, "pgd-2", {ZERO, FULL}),
        (softmax, "pgd", {SOFTMAX}),
        (noisy, "pgd", {VARYING}),
        (constant, "pgd", set()),
    ],
)
def test_findings(
    digits: Digits,
    change: Callable[[nn.Module], nn.Module],
    suite: str,
    expected: set[str],
    norm: str,
) -> None:
    """The logits times 10,000 mask gradients of the cross-entropy, not of the margin.

    A constant model is not checked: there is nothing that an attack could find.
    """
    torch.manual_seed(0)
    texts = assess(change(digits.model), digits.images, suite, norm)
    assert findings(texts) == expected
    if FULL in expected:
        eps = {"Linf": "1", "L2": "8"}[norm]
        (text,) = (text for text in texts if FULL in text)
        assert f"({norm}, eps {eps})" in text
        assert "leaves 8 of 8 images classified correctly" in text


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_evaluation_reports_the_findings(digits: Digits, norm: str) -> None:
    model = quantized(digits.model)
    result = run(model, digits.images, norm=norm)
    assert result.warnings == assess(model, digits.images, "pgd", norm)
    assert findings(result.warnings) == {ZERO, FULL}


def test_only_correct_images_are_counted(digits: Digits) -> None:
    with torch.no_grad():
        predicted = digits.model(digits.images.pixels / 255).argmax(1)
    labels = (predicted + 1) % 10
    labels[[3, 20, 30]] = predicted[[3, 20, 30]]
    result = run(quantized(digits.model), Images(digits.images.pixels, labels))
    assert "leaves 3 of 3 images" in result.warnings[-1]


def test_a_model_without_correct_images_is_not_checked(digits: Digits) -> None:
    with torch.no_grad():
        wrong = (digits.model(digits.images.pixels / 255).argmax(1) + 1) % 10
    assert run(quantized(digits.model), Images(digits.images.pixels, wrong)).warnings == ()


def test_the_checks_change_no_outcome_and_no_random_state(digits: Digits) -> None:
    model = noisy(digits.model)
    results = []
    for check_reliability in (True, False):
        torch.manual_seed(0)
        result = run(model, digits.images, check_reliability=check_reliability)
        results.append((result.robust, result.clean, torch.rand(1)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert run(model, digits.images, check_reliability=False).warnings == ()


@pytest.mark.parametrize("allowed", range(6))
def test_a_killed_evaluation_has_the_same_findings(
    digits: Digits, tmp_path: Path, allowed: int
) -> None:
    """The clean pass and the attack have three batches each; findings are saved with the fourth."""
    files = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=40, rank=0)
    model = quantized(digits.model)
    with pytest.raises(KeyboardInterrupt):
        run(model, digits.images, progress_store=KilledAfter(files, allowed))
    result = run(model, digits.images, progress_store=files)
    assert result.warnings == run(model, digits.images).warnings
    assert findings(result.warnings) == {ZERO, FULL}


class RankOne(SingleProcess):
    """The second of two ranks, which receives from rank 0 what `findings` hold."""

    rank, size, is_rank_zero = 1, 2, False

    def broadcast(self, value: object) -> object:  # type: ignore[override]
        return ["found by rank 0"] if value == [] else "channels_last" if value == "" else value


def test_rank_zero_checks_for_all_ranks(digits: Digits) -> None:
    result = run(quantized(digits.model), digits.images, process_group=RankOne())
    assert result.warnings == ("found by rank 0",)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_robust_resnet_has_no_findings(real_images: Path, norm: str) -> None:
    model = build_model("resnet18", num_classes=10)
    state = torch.load(real_images / "resnet18-at+wa-jpeg-float16.pt", weights_only=True)
    load_third_party(state, model, normalize=None)
    images, _ = load_split(str(real_images / "cifar10-first.npz"), "test", data_dir=Path("unused"))
    assert run(model.eval(), images.first(16), "fgsm", norm=norm).warnings == ()
