"""Images that are clearly misclassified leave APGD's batch, and no outcome changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import autoattack, early_exit
from adrbench.attacks.autoattack import OfficialAttack, Version, configure
from adrbench.attacks.early_exit import EarlyExit, add_early_exit
from adrbench.attacks.finite_logits import FiniteLogits
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_dataset, to_float
from tiny import Linear, labelled_by, make_images, train_small_net


class Counting(nn.Module):
    """Counts the images that pass through the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_images += len(x)
        logits: Tensor = self.model(x)
        return logits


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Images]:
    """Return a small net trained on digits, and 40 test images with its predictions as labels."""
    dataset = load_dataset("digits", data_dir=Path("unused"))
    model = train_small_net(dataset.train, classes=10).requires_grad_(False)
    return model, labelled_by(model, dataset.test.first(40))


def attack(
    model: nn.Module, images: Images, stage: OfficialAttack, *, exit_early: bool
) -> tuple[Tensor, int]:
    """Return whether each image is still correct, and how many images the model processed."""
    counting = Counting(model)
    x = to_float(images.pixels)
    finite = FiniteLogits(counting, x, images.labels)
    official = configure(stage, finite, torch.device("cpu"))
    if exit_early:
        add_early_exit(official, finite)
    x_adv: Tensor = official.perturb(x, images.labels)
    with torch.no_grad():
        return model(x_adv).argmax(1) == images.labels, counting.num_images


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "apgd-dlr"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.08), ("L2", 0.45)])
def test_outcomes_are_those_of_the_whole_batch(
    name: str, norm: str, eps: float, digits: tuple[nn.Module, Images]
) -> None:
    model, images = digits
    stage = OfficialAttack(
        name=name, threat=ThreatModel(norm=norm, eps=eps), num_classes=10, version="standard"
    )
    expected, num_full = attack(model, images, stage, exit_early=False)
    correct, num_reduced = attack(model, images, stage, exit_early=True)
    assert torch.equal(expected, correct)
    assert 0 < int(expected.sum()) < len(expected), "the attack should succeed on some images only"
    assert num_reduced < 0.95 * num_full


def test_a_batch_that_is_misclassified_at_once_costs_few_passes() -> None:
    model = Linear(classes=5)
    images = labelled_by(model, make_images(20, classes=5))
    stage = OfficialAttack(name="apgd-ce", threat=ThreatModel(eps=1.0), num_classes=5)
    correct, num_images = attack(model, images, stage, exit_early=True)
    assert not correct.any()
    assert num_images < 20 * 20


class BatchDependent(nn.Module):
    """Shifts every image's logits by the mean of the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) + 5 * x.mean() * torch.arange(3)
        return logits


def test_no_image_leaves_the_batch_of_a_batch_dependent_model() -> None:
    inner = Counting(BatchDependent(Linear(classes=3)))
    x = make_images(6).pixels / 255
    model = EarlyExit(FiniteLogits(inner, x, torch.zeros(6)))
    labels = inner.model(x).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    with model.tracking(labels):
        for _ in range(4):
            torch.testing.assert_close(model(x), inner.model(x))
    inner.num_images = 0
    with model.tracking(labels):
        model(x)
        model(x)
    assert inner.num_images == 12


def test_an_image_that_is_barely_misclassified_stays_in_the_batch() -> None:
    """The wrong class leads by 0.005, then by 0.02: the image leaves before the third pass."""
    leads = iter((0.005, 0.02))

    class Leading(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.0, next(leads)]])

    x, labels = torch.zeros(1, 1, 2, 2), torch.tensor([0])
    model = EarlyExit(FiniteLogits(Leading(), x, labels))
    with model.tracking(labels):
        predictions = [model(x).argmax(1).item() for _ in range(4)]
    assert predictions == [1, 1, 0, 0]


def test_pixels_that_are_not_finite_do_not_affect_inactive_images() -> None:
    inner = Linear(classes=3)
    x = make_images(2).pixels / 255
    model = EarlyExit(FiniteLogits(inner, x, torch.zeros(2)))
    labels = (inner(x).argmax(1) + 1) % 3
    with model.tracking(labels):
        model(x)
        broken = torch.full_like(x, torch.nan).requires_grad_()
        logits = model(broken)
        (gradient,) = torch.autograd.grad(logits.sum(), broken)
    assert torch.equal(logits.argmax(1), labels)
    assert gradient.eq(0).all()


def test_an_inactive_image_predicts_its_label_and_has_no_gradient() -> None:
    """The second of three images is misclassified: later passes run only on the other two."""
    inner = Counting(Linear(classes=3))
    x = make_images(3).pixels / 255
    model = EarlyExit(FiniteLogits(inner, x, torch.zeros(3)))
    labels = inner.model(x).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    with model.tracking(labels):
        torch.testing.assert_close(model(x), inner.model(x))
        inner.num_images = 0
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        assert inner.num_images == 2 + 3, "and the full batch once, to check batch independence"
        model(x)
        assert inner.num_images == 2 + 3 + 2
        (gradient,) = torch.autograd.grad(logits.sum(), leaf)
    assert torch.equal(logits.argmax(1), labels)
    assert gradient.flatten(1).abs().sum(1).ne(0).tolist() == [True, False, True]
    torch.testing.assert_close(model(x), inner.model(x))


def test_randomized_models_have_no_early_exit(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[nn.Module, Images]
) -> None:
    """Where a gradient is a mean over several passes, one misclassification decides nothing."""
    attacks: list[Any] = []
    monkeypatch.setattr(autoattack, "add_early_exit", lambda attack, finite: attacks.append(attack))
    model, images = digits[0], digits[1].first(2)
    x, y = to_float(images.pixels), images.labels
    versions: tuple[Version, ...] = ("rand", "standard")
    for version in versions:
        stage = OfficialAttack(
            name="apgd-ce",
            threat=ThreatModel(eps=0.05),
            num_classes=10,
            version=version,
        )
        stage.perturb(model, x, y, torch.arange(2))
        assert len(attacks) == (version == "standard")
    assert early_exit.add_early_exit is add_early_exit
