"""Models and attacks that an evaluation cannot take as they are: right outcomes or one sentence."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adrbench
from adrbench.attacks import PGD
from adrbench.registry import UserCodeError
from messages import assert_one_line
from tiny import make_images, train_small_net

IMAGES = make_images(40, classes=5, size=6)
X, Y = IMAGES.pixels / 255, IMAGES.labels
MODEL = train_small_net(IMAGES, classes=5)


def evaluate(model: nn.Module = MODEL, x: Tensor = X, **more: Any) -> adrbench.Result:
    settings: dict[str, Any] = {"suite": "pgd-5", "eps": 0.03, "batch_size": 16, **more}
    result: adrbench.Result = adrbench.evaluate(model, x, Y, **settings)
    return result


class Fixed(nn.Module):
    """A model that cannot be copied."""

    def __init__(self, network: nn.Module = MODEL) -> None:
        super().__init__()
        self.network = network

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("it cannot be copied")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("suite", ["pgd-5", "apgd-ce"])
@pytest.mark.parametrize("shift", [0.0, 1e-4], ids=["at pixel levels", "between them"])
def test_outcomes_within_inference_mode_are_those_outside(suite: str, shift: float) -> None:
    expected = evaluate(x=X * (1 - shift), suite=suite)
    assert 0 < expected.robust.sum() < expected.clean.sum()
    with torch.inference_mode():
        x = X * (1 - shift)
        for model in (MODEL, Fixed()):
            result = evaluate(model, x, suite=suite, keep_adversarial=True)
            assert (result.robust == expected.robust).all()
            assert result.warnings == expected.warnings
            assert torch.is_inference_mode_enabled()


def make_inference_model() -> nn.Module:
    """Return a model of which every tensor was made in inference mode."""
    with torch.inference_mode():
        norm, linear = nn.BatchNorm2d(1), nn.Linear(36, 5)
        torch.manual_seed(0)
        linear.weight.normal_()
        norm.get_buffer("running_mean").fill_(0.4)
        return nn.Sequential(norm, nn.Flatten(), linear).eval()


def test_weights_made_in_inference_mode_are_attacked() -> None:
    model = make_inference_model()
    usual = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 5))
    usual.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
    with torch.no_grad():
        labels = usual.eval()(X).argmax(1)
    settings: dict[str, Any] = {"suite": "pgd-5", "eps": 0.03}
    expected = adrbench.evaluate(usual, X, labels, **settings)
    assert 0 < expected.robust.sum() < 40
    result = adrbench.evaluate(model, X, labels, **settings)
    assert (result.robust == expected.robust).all()
    assert all(parameter.is_inference() for parameter in model.parameters())


def test_they_are_one_error_in_a_model_that_cannot_be_copied() -> None:
    with pytest.raises(UserCodeError, match=r"made in torch\.inference_mode.*it cannot be copied"):
        evaluate(Fixed(make_inference_model()))


class Training(PGD):
    """PGD on a model in training mode, as careless attacks do."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(x * 0.1)
        return x


@pytest.mark.parametrize("is_fixed", [False, True])
def test_an_attack_in_training_mode_does_not_change_batch_norm(is_fixed: bool) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), MODEL)
    model = Fixed(network) if is_fixed else network
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = evaluate(model, suite=Training(name="careless", steps=1))
    assert result.clean.sum() > 20
    assert (result.robust == result.clean).all()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Varying(nn.Module):
    """A model with another output for every batch of more than 8 images."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = MODEL(x)
        return torch.cat([logits, logits[:, :1]], 1) if len(x) > 8 else logits


class Flat(nn.Module):
    """A model that returns a flat tensor for every batch of more than 8 images."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = MODEL(x)
        return logits.flatten() if len(x) > 8 else logits


@pytest.mark.parametrize(("model", "shape"), [(Varying(), "(16, 6)"), (Flat(), "(80,)")])
def test_outputs_that_change_with_the_batch_are_one_error(model: nn.Module, shape: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        evaluate(model)
    assert f"of shape {shape} for 16 images: it must return logits of shape (N, 5)" in str(
        caught.value
    )
    assert_one_line(str(caught.value))


class Failing(PGD):
    """An attack with checks that fail."""

    failing = "review"

    def inspect(self, model: nn.Module, x: Tensor) -> None:
        if self.failing == "inspect":
            raise KeyError("layer")

    def review(self, accuracies: Mapping[str, float]) -> None:
        if self.failing == "review":
            raise SystemExit("no accuracy")


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        ("inspect", "inspect of suite mine raised KeyError ('layer')."),
        ("review", "review of suite mine raised SystemExit (no accuracy)."),
    ],
)
def test_a_check_of_an_attack_that_raises_is_one_error(failing: str, words: str) -> None:
    attack = type("Failing", (Failing,), {"failing": failing})(name="mine", steps=1)
    with pytest.raises(UserCodeError) as caught:
        evaluate(suite=attack)
    assert str(caught.value) == words
