"""The evaluation judges attacks itself, and each stage attacks the survivors of the last."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.pgd import fgsm
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.registry import UserCodeError
from adrbench.runtime.arithmetic import full_precision
from tiny import Linear, labelled_by, make_images

THREAT = ThreatModel(eps=0.05)


@dataclass
class Shifting:
    """A stage that moves every pixel by a constant and records the indices of its images."""

    label_loss = None
    shift: float
    name: str = "shift"
    seen: tuple[int, ...] = ()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        self.seen += tuple(indices.tolist())
        return x + self.shift


def suite(*stages: object) -> Suite:
    return Suite(name="made", stages=stages, parameters={})  # type: ignore[arg-type]


class AlwaysZero(nn.Module):
    """Predicts class 0 for the images, and class 1 for any other."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.register_buffer("images", images)

    def forward(self, x: Tensor) -> Tensor:
        moved = (x[:, None] - self.images[None]).abs().flatten(2).amax(2).amin(1) > 0  # type: ignore[index]
        return 9 * torch.stack([(~moved).float(), moved.float()], 1)


@pytest.mark.parametrize(("shift", "robust"), [(0.04, 0), (0.06, 5), (-0.04, 0), (float("nan"), 5)])
def test_images_outside_the_ball_count_as_robust(shift: float, robust: int) -> None:
    images = make_images(5)
    images = type(images)(images.pixels.clamp(50, 200), torch.zeros_like(images.labels))
    model = AlwaysZero(images.pixels / 255)
    result = evaluate(model, images, suite(Shifting(shift)), THREAT, batch_size=2)
    assert result.clean_correct == 5
    assert result.robust_correct == robust
    assert bool(result.warnings) == (robust == 5)


def test_images_outside_the_pixel_range_count_as_robust() -> None:
    images = make_images(5)
    images = type(images)(torch.full_like(images.pixels, 255), torch.zeros_like(images.labels))
    model = AlwaysZero(images.pixels / 255)
    result = evaluate(model, images, suite(Shifting(0.01)), THREAT, batch_size=5)
    assert result.robust_correct == 5
    assert "returned images outside the threat model" in result.warnings[0]


def test_each_stage_attacks_only_the_survivors_of_the_last() -> None:
    model = Linear()
    images = make_images(40)
    first, second = fgsm(THREAT), Shifting(0.0)
    result = evaluate(model, images, suite(first, second), THREAT, batch_size=7)
    survivors = result.robust.nonzero().squeeze(1).tolist()
    assert second.seen == tuple(survivors)
    assert 0 < len(survivors) < result.clean_correct < 40
    assert [stage.survivors for stage in result.stages] == [len(survivors)] * 2


def test_misclassified_images_are_not_attacked() -> None:
    model = Linear()
    images = make_images(40)
    stage = Shifting(0.0)
    result = evaluate(model, images, suite(stage), THREAT, batch_size=40)
    assert stage.seen == tuple(result.clean.nonzero().squeeze(1).tolist())
    with torch.no_grad():
        expected = model(images.pixels / 255).argmax(1) == images.labels
    assert torch.equal(result.clean, expected)


@pytest.mark.parametrize("can_be_traced", [True, False])
def test_the_result_states_whether_batch_norm_was_folded(can_be_traced: bool) -> None:
    class Branching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else -super().forward(x)

    model = Linear() if can_be_traced else Branching()
    result = evaluate(model, make_images(4), suite(fgsm(THREAT)), THREAT, batch_size=4)
    assert result.folded == can_be_traced


def test_the_state_of_the_model_is_restored() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), Linear()).train()
    model[0].eval()
    model[1].weight.requires_grad_(False)
    evaluate(model, make_images(6), suite(fgsm(THREAT)), THREAT, batch_size=3)
    assert model.training
    assert not model[0].training
    assert model[0].weight.requires_grad
    assert not model[1].weight.requires_grad
    assert int(model[0].num_batches_tracked) == 0  # type: ignore[arg-type]


def test_progress_counts_every_image_once() -> None:
    model = Linear()
    images = labelled_by(model, make_images(10))
    reported: list[tuple[str, int, int, int]] = []
    result = evaluate(
        model,
        images,
        suite(fgsm(THREAT)),
        THREAT,
        batch_size=4,
        callbacks=ProgressCallbacks(on_batch=lambda *seen: reported.append(seen)),
    )
    assert reported[:4] == [("clean", done, 10, 10) for done in (0, 4, 8, 10)]
    assert reported[4] == ("fgsm", 0, 10, 10)
    assert reported[-1] == ("fgsm", 10, 10, result.robust_correct)


def test_other_warnings_are_passed_on() -> None:
    class Warning_(Shifting):  # noqa: N801
        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
            warnings.warn("something of torch", UserWarning, stacklevel=1)
            return x

    with pytest.warns(UserWarning, match="something of torch"):
        evaluate(Linear(), make_images(4), suite(Warning_(0.0)), THREAT, batch_size=4)


def test_full_precision_is_restored_afterwards() -> None:
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    with full_precision():
        assert not any(switch.allow_tf32 for switch in switches)
    assert [switch.allow_tf32 for switch in switches] == before
    assert torch.backends.cudnn.allow_tf32, "cuDNN allows TF32 by default"


def test_a_stage_without_survivors_to_attack() -> None:
    model = Linear()
    images = make_images(5)
    with torch.no_grad():
        wrong = (model(images.pixels / 255).argmax(1) + 1) % 3
    reported: list[tuple[str, int, int, int]] = []
    stage = Shifting(0.0)
    result = evaluate(
        model,
        type(images)(images.pixels, wrong),
        suite(stage),
        THREAT,
        batch_size=2,
        callbacks=ProgressCallbacks(on_batch=lambda *seen: reported.append(seen)),
    )
    assert (result.clean_correct, result.robust_correct) == (0, 0)
    assert reported[-1] == ("shift", 0, 0, 0)
    assert stage.seen == ()


class Untracked(nn.Module):
    """A model of whose logits autograd knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Linear()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.detach())
        return logits.detach()


@pytest.mark.parametrize("name", ["pgd-3", "apgd-ce", "fab-t"])
def test_a_model_without_gradients_is_attacked_with_a_warning(name: str) -> None:
    model = Untracked()
    images = labelled_by(model, make_images(6))
    built = build_suite(AttackConfig(suite=name), THREAT, 3)
    result = evaluate(model, images, built, THREAT, batch_size=6)
    assert result.clean_correct == 6
    assert any("gradient of exactly zero" in text for text in result.warnings)


class Broken:
    """A stage of a user's that does not do what a stage must."""

    name = "broken"
    label_loss = None

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (KeyError("step"), "broken of suite made on the model raised KeyError ('step')"),
        (None, "returned a NoneType of shape ()"),
        (torch.zeros(2, 1, 4, 4), "returned a Tensor of shape (2, 1, 4, 4)"),
    ],
)
def test_a_stage_that_fails_is_one_error(answer: object, words: str) -> None:
    images = labelled_by(Linear(), make_images(4))
    with pytest.raises(UserCodeError) as caught:
        evaluate(Linear(), images, suite(Broken(answer)), THREAT, batch_size=4)
    assert words in str(caught.value)


def test_threads_that_evaluate_one_model_get_the_outcomes_of_one_thread() -> None:
    images = make_images(40)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1), Linear()).train()
    images = labelled_by(model[2], images)
    built = build_suite(AttackConfig(suite="apgd-ce"), THREAT, 3)

    def run(_: int = 0) -> Evaluation:
        return evaluate(model, images, built, THREAT, batch_size=16)

    alone = run()
    assert 0 < alone.robust_correct < alone.clean_correct
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(8)))
    for one in together:
        assert torch.equal(one.robust, alone.robust)
        assert one.warnings == alone.warnings
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Vandal:
    """A stage that writes into what it is given."""

    name = "vandal"
    label_loss = None

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        y.zero_()
        return x.add_(1)


def test_a_stage_cannot_change_the_images_that_it_is_judged_by() -> None:
    images = labelled_by(Linear(), make_images(6))
    result = evaluate(Linear(), images, suite(Vandal()), THREAT, batch_size=6)
    assert result.robust_correct == 6
    assert any("outside the threat model" in text for text in result.warnings)
