"""A logit that is not finite ends an evaluation on clean images, and is no success under attack."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Images
from adrbench.errors import NonFiniteLogitsError
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.progress import ProgressFiles, ProgressStore
from adrbench.models.architectures import build_model
from killed_store import KilledAfter
from messages import assert_one_sentence
from runner import command, tree
from tiny import Linear, batch_norms, labelled_by, make_images

THREATS = {"Linf": ThreatModel(eps=0.3), "L2": ThreatModel(norm="L2", eps=1.5)}


def negative_variance(model: nn.Module) -> None:
    layer = batch_norms(model)[0]
    assert layer.running_var is not None
    layer.running_var[0] = -1.0


def tiny_std(model: nn.Module) -> None:
    model.get_buffer("std").fill_(1e-40)


def huge_weights(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.fill_(3e38)


def infinite_logit(model: nn.Module) -> None:
    model.get_parameter("linear.bias")[2] = math.inf


BREAK = [negative_variance, tiny_std, huge_weights, infinite_logit]


def run(
    model: nn.Module,
    images: Images,
    suite: str,
    *,
    norm: str = "Linf",
    store: ProgressStore | None = None,
) -> Evaluation:
    config = AttackConfig(suite=suite, batch_size=5, restarts=2 if suite == "pgd-3" else 1)
    return evaluate(
        model,
        images,
        build_suite(config, THREATS[norm], 5),
        THREATS[norm],
        label="mine",
        batch_size=config.batch_size,
        progress_store=store,
    )


@pytest.mark.parametrize("suite", ["pgd-3", "apgd-t"])
@pytest.mark.parametrize("break_model", BREAK)
def test_a_model_without_finite_logits_has_no_accuracy(
    break_model: Callable[[nn.Module], None], suite: str
) -> None:
    model = build_model("small-cnn", num_classes=5, in_channels=1).eval()
    with torch.no_grad():
        break_model(model)
    with pytest.raises(NonFiniteLogitsError) as caught:
        run(model, make_images(12, classes=5, size=8), suite)
    assert_one_sentence(
        str(caught.value), "logits of mine", "on 12 of 12 clean images", f"under {suite}"
    )


class NonFinite(nn.Module):
    """Linear logits, of which those in `column` become `value` where `is_bad` holds, (N,)."""

    def __init__(
        self, is_bad: Callable[[Tensor], Tensor], value: float = math.nan, column: int | None = None
    ) -> None:
        super().__init__()
        self.inner = Linear(classes=5, size=6)
        self.is_bad = is_bad
        self.value = value
        self.columns = slice(None) if column is None else slice(column, column + 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        bad = torch.zeros_like(logits, dtype=torch.bool)
        bad[:, self.columns] = self.is_bad(x)[:, None]
        return torch.where(bad, self.value, logits)


def is_perturbed(x: Tensor) -> Tensor:
    return (255 * x - (255 * x).round()).abs().flatten(1).amax(1) > 0.01


IMAGES = labelled_by(Linear(classes=5, size=6), make_images(12, classes=5, size=6))


SUITES = ("fgsm", "pgd-3", "cw", "apgd-ce", "apgd-t", "fab-t", "square")
#: Values of logits, and the column that has them, None for all.
VALUES = ((math.nan, None), (math.nan, 2), (math.inf, None), (math.inf, 0), (-math.inf, 0))


@pytest.mark.parametrize(
    ("norm", "suite", "value", "column"),
    [
        *(("Linf", suite, *value) for suite in SUITES for value in VALUES),
        *(("L2", suite, *VALUES[0]) for suite in SUITES),
    ],
)
def test_attacked_images_without_finite_logits_are_not_robust(
    norm: str, suite: str, value: float, column: int | None
) -> None:
    """Also those of class 0, the argmax of NaN, and of a class whose logit is infinite."""
    result = run(NonFinite(is_perturbed, value, column), IMAGES, suite, norm=norm)
    assert (result.clean_correct, result.robust_correct) == (12, 0)
    assert f"under {suite} the logits of 12 of 12 images were not finite" in result.warnings[-1]


def test_the_other_images_of_a_batch_have_the_outcomes_of_the_finite_model() -> None:
    """The first pixel of every third image is black, and NaN follows from a change to it."""
    pixels = IMAGES.pixels.clamp(1)
    pixels[::3, :, 0, 0] = 0
    images = labelled_by(Linear(classes=5, size=6), Images(pixels, IMAGES.labels))

    def is_bad(x: Tensor) -> Tensor:
        return (x[:, 0, 0, 0] > 0) & (x[:, 0, 0, 0] < 0.5 / 255)

    class Nudging:
        name = "nudging"

        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
            return torch.where(x == 0, 0.1 / 255, x)

    suite = Suite(name="nudging", stages=(Nudging(),), parameters={})
    result = evaluate(NonFinite(is_bad), images, suite, THREATS["Linf"], batch_size=5)
    broken = (pixels == 0).flatten(1).any(1)
    assert torch.equal(result.robust, ~broken)
    count = int(broken.sum())
    assert f"the logits of {count} of 12 images were not finite" in result.warnings[-1]


@pytest.mark.parametrize("allowed", range(5))
def test_a_killed_evaluation_reports_the_same_images(tmp_path: Path, allowed: int) -> None:
    """The clean pass and the attack have three batches each."""
    files = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=12, rank=0)
    model = NonFinite(is_perturbed)
    with pytest.raises(KeyboardInterrupt):
        run(model, IMAGES, "pgd-3", store=KilledAfter(files, allowed))
    result, whole = run(model, IMAGES, "pgd-3", store=files), run(model, IMAGES, "pgd-3")
    assert result.warnings == whole.warnings
    assert "12 of 12" in whole.warnings[-1]


@pytest.mark.parametrize("allowed", range(3))
def test_a_clean_pass_killed_after_a_bad_batch_still_ends_the_evaluation(
    tmp_path: Path, allowed: int
) -> None:
    """Only the first image, in the first batch, has no finite logits."""
    files = ProgressFiles(stem=tmp_path / ".run", fingerprint="f", n=12, rank=0)
    first = IMAGES.pixels[:1] / 255
    model = NonFinite(lambda x: (x == first).flatten(1).all(1))
    with pytest.raises(KeyboardInterrupt):
        run(model, IMAGES, "pgd-3", store=KilledAfter(files, allowed))
    with pytest.raises(NonFiniteLogitsError, match="on 1 of 12 clean images"):
        run(model, IMAGES, "pgd-3", store=files)


def test_the_command_ends_with_one_sentence_and_leaves_no_file(tmp_path: Path) -> None:
    model = build_model("small-cnn", num_classes=10, in_channels=1)
    negative_variance(model)
    torch.save(model.state_dict(), tmp_path / "broken.pt")
    target = (tmp_path / "broken.pt", "--arch", "small-cnn", "--dataset", "digits")
    options = ("--eps", "0.1", "--suite", "pgd-2", "--n", "20")
    outcome = command("attack", *target, *options, "--out", tmp_path / "results")
    assert outcome.code == 1
    assert "error: the logits of broken are not finite" in outcome.err
    assert "on 20 of 20 clean images" in outcome.err
    assert not any("broken" in path for path in tree(tmp_path) if path != "broken.pt")
