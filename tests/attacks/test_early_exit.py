"""Fooled images leave APGD's batches, and no verdict changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import autoattack
from adrbench.attacks import early_exit as sparing
from adrbench.attacks.autoattack import OfficialAttack, Version, configure
from adrbench.attacks.early_exit import EarlyExit, add_early_exit
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_dataset, to_float
from tiny import Linear, labelled_by, make_images, train_small_net


class Counting(nn.Module):
    """Counts the images it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits: Tensor = self.model(x)
        return logits


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Images]:
    """Return a small net trained on digits, and 40 test images labelled as it sees them."""
    dataset = load_dataset("digits", data_dir=Path("unused"))
    model = train_small_net(dataset.train, classes=10).requires_grad_(False)
    return model, labelled_by(model, dataset.test.first(40))


def attack(
    model: nn.Module, images: Images, stage: OfficialAttack, *, spare: bool
) -> tuple[Tensor, int]:
    counting = Counting(model)
    official = configure(stage, counting, torch.device("cpu"))
    if spare:
        add_early_exit(official)
    x_adv: Tensor = official.perturb(to_float(images.pixels), images.labels)
    with torch.no_grad():
        return model(x_adv).argmax(1) == images.labels, counting.asked


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "apgd-dlr"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.08), ("L2", 0.45)])
def test_verdicts_are_those_of_the_whole_batch(
    name: str, norm: str, eps: float, digits: tuple[nn.Module, Images]
) -> None:
    model, images = digits
    stage = OfficialAttack(
        name=name, threat=ThreatModel(norm=norm, eps=eps), num_classes=10, version="standard"
    )
    whole, asked = attack(model, images, stage, spare=False)
    spared, asked_less = attack(model, images, stage, spare=True)
    assert torch.equal(whole, spared)
    assert 0 < int(whole.sum()) < len(whole), "some should stand and some fall"
    assert asked_less < 0.95 * asked


def test_a_batch_that_is_fooled_at_once_costs_next_to_nothing() -> None:
    model = Linear(classes=5)
    images = labelled_by(model, make_images(20, classes=5))
    stage = OfficialAttack(name="apgd-ce", threat=ThreatModel(eps=1.0), num_classes=5)
    standing, asked = attack(model, images, stage, spare=True)
    assert not standing.any()
    assert asked < 20 * 20


class Crowd(nn.Module):
    """Shifts every image's logits by what the whole batch looks like."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) + 5 * x.mean() * torch.arange(3)
        return logits


def test_none_is_spared_where_images_are_not_apart() -> None:
    inner = Counting(Crowd(Linear(classes=3)))
    model = EarlyExit(inner)
    x = make_images(6).pixels / 255
    labels = inner.model(x).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    with model.watching(labels):
        for _ in range(4):
            torch.testing.assert_close(model(x), inner.model(x))
    inner.asked = 0
    with model.watching(labels):
        model(x)
        model(x)
    assert inner.asked == 12


def test_an_image_that_is_hardly_fooled_is_asked_again() -> None:
    """The wrong class leads by 0.005, then by 0.02: the third time it is spared."""
    leads = iter((0.005, 0.02))

    class Leading(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.0, next(leads)]])

    model = EarlyExit(Leading())
    with model.watching(torch.tensor([0])):
        answers = [model(torch.zeros(1, 1, 2, 2)).argmax(1).item() for _ in range(4)]
    assert answers == [1, 1, 0, 0]


def test_what_is_not_finite_stays_out_of_spared_answers() -> None:
    inner = Linear(classes=3)
    model = EarlyExit(inner)
    x = make_images(2).pixels / 255
    labels = (inner(x).argmax(1) + 1) % 3
    with model.watching(labels):
        model(x)
        broken = torch.full_like(x, torch.nan).requires_grad_()
        logits = model(broken)
        (gradient,) = torch.autograd.grad(logits.sum(), broken)
    assert torch.equal(logits.argmax(1), labels)
    assert gradient.eq(0).all()


def test_a_spared_image_says_its_label_and_has_no_gradient() -> None:
    """Of three images the second is fooled: from then on the model only hears of the others."""
    inner = Counting(Linear(classes=3))
    model = EarlyExit(inner)
    x = make_images(3).pixels / 255
    labels = inner.model(x).argmax(1)
    labels[1] = (labels[1] + 1) % 3
    with model.watching(labels):
        torch.testing.assert_close(model(x), inner.model(x))
        inner.asked = 0
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        assert inner.asked == 2 + 3, "and once more, to see that images are apart"
        model(x)
        assert inner.asked == 2 + 3 + 2
        (gradient,) = torch.autograd.grad(logits.sum(), leaf)
    assert torch.equal(logits.argmax(1), labels)
    assert gradient.flatten(1).abs().sum(1).ne(0).tolist() == [True, False, True]
    torch.testing.assert_close(model(x), inner.model(x))


def test_random_models_are_asked_every_time(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[nn.Module, Images]
) -> None:
    """Where a gradient is the mean over many passes, one wrong answer does not count as fooled."""
    spared: list[Any] = []
    monkeypatch.setattr(autoattack, "add_early_exit", spared.append)
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
        assert len(spared) == (version == "standard")
    assert sparing.add_early_exit is add_early_exit
