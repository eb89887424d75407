"""Frozen copies: the same logits and gradients, BatchNorm folded where that is safe."""

import os
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.data import load_split, to_float
from adrbench.models.architectures import build_model
from adrbench.models.frozen import (
    TOLERANCE,
    find_fastest,
    fold_batch_norm,
    freeze,
    is_equivalent,
    relative_difference,
)
from tiny import build_trained

#: architecture -> how many BatchNorm layers do not follow a convolution.
ARCHS = {"small-cnn": 0, "resnet18": 0, "preact-resnet18": 9, "wrn-10-1": 4}


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def input_gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    labels = torch.arange(len(x)) % 10
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    return gradient


@pytest.mark.parametrize(
    "formats", [(torch.channels_last,), (torch.channels_last, torch.contiguous_format)]
)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_frozen_model_has_the_logits_and_gradients_of_the_model(
    arch: str, formats: tuple[torch.memory_format, ...]
) -> None:
    model, x = build_trained(arch), images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = freeze(model, x, formats).model
    assert len([m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d)]) == ARCHS[arch]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(module.training for module in frozen.modules())
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model.eval()
    assert relative_difference(model(x), frozen(x)) < 1e-5
    expected = input_gradient(model, x)
    torch.testing.assert_close(
        input_gradient(frozen, x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


class Wrapped(nn.Module):
    """A small network inside `function`, which takes the network and the images."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = build_trained("small-cnn")
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body, x)


def branching() -> nn.Module:
    """Return a model that branches on pixel values, which cannot be traced."""
    return Wrapped(lambda body, x: body(x) if x.mean() > 0.3 else -body(x))


def noisy() -> nn.Module:
    """Return a model with random noise, which a trace would turn into a constant."""
    return Wrapped(lambda body, x: body(x + torch.randn(1)))


def test_a_model_that_cannot_be_traced_is_not_folded() -> None:
    model = branching().eval()
    with pytest.raises(Exception, match="control flow"):
        fold_batch_norm(model)
    frozen = freeze(model, images()).model
    for x in (images(), images() * 0.2):
        torch.testing.assert_close(frozen(x), model(x))


def test_a_randomized_model_is_not_copied() -> None:
    model, x = noisy().eval(), images()
    assert freeze(model, x).model is model
    assert not torch.equal(model(x), model(x))


class StraightThrough(torch.autograd.Function):
    """Rounds to multiples of 1/16, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (16 * x).round() / 16

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def quantized() -> nn.Module:
    """Return a defense whose trace has the same logits and a gradient of zero."""
    return Wrapped(lambda body, x: body(StraightThrough.apply(x)))


class PartialGradient(nn.Module):
    """Computes one branch under `no_grad`, which a trace ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.other = build_trained("small-cnn"), build_trained("small-cnn")
        nn.init.normal_(self.other.get_submodule("linear").weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            other = self.other(x)
        logits: Tensor = self.body(x) + other
        return logits


class Flattening(nn.Module):
    """Calls `view`, which requires the contiguous memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4 * 16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).view(len(x), -1))
        return logits


class Storing(nn.Module):
    """Stores its last logits, which have a graph and so cannot be deep-copied."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_trained("small-cnn")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        self.last = logits
        return logits


@pytest.mark.parametrize("make", [quantized, PartialGradient, Flattening, Storing])
def test_unusual_models_keep_their_logits_and_gradients(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), images(12)
    expected, gradient = model(x), input_gradient(model, x)
    frozen = freeze(model, x).model
    torch.testing.assert_close(frozen(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        input_gradient(frozen, x), gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
    )
    assert float(gradient.abs().max()) > 0


def test_the_fastest_model_is_found_by_running_each() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.02)
            return x.flatten(1)

    slow, quick = Slow(), nn.Flatten()
    assert find_fastest({"slow": slow, "quick": quick}, images()) == "quick"
    assert find_fastest({"slow": slow}, images()) == "slow"


def test_equivalence_includes_gradients() -> None:
    model, x = quantized().eval(), images()
    trace = fold_batch_norm(model)
    with torch.no_grad():
        assert relative_difference(model(x), trace(x)) < TOLERANCE
    assert not is_equivalent(model, trace, x)
    assert is_equivalent(model, model, x)


def test_a_forward_hook_still_applies() -> None:
    model = build_trained("resnet18").eval()
    model.get_submodule("bn1").register_forward_hook(lambda module, args, output: 2 * output)
    x = images()
    torch.testing.assert_close(freeze(model, x).model(x), model(x))


def test_other_threads_run_their_models_while_one_is_traced() -> None:
    x, other = images(), build_trained("small-cnn").eval()
    expected, found = other(x), []
    is_traced = threading.Event()

    def run_other() -> None:
        assert is_traced.wait(60)
        found.append(other(x))

    thread = threading.Thread(target=run_other)

    def wait_for_it(body: nn.Module, x: Tensor) -> Tensor:
        is_traced.set()
        thread.join()
        logits: Tensor = body(x)
        return logits

    thread.start()
    folded = fold_batch_norm(Wrapped(wait_for_it))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.equal(found[0], expected)


@pytest.mark.data
def test_folding_keeps_the_logits_of_a_trained_network_on_real_images(real_images: Path) -> None:
    found = find_spec("pyautoattack")
    assert found is not None
    assert found.origin is not None
    weights = Path(found.origin).parent / "examples" / "model_test.pt"
    if not weights.exists():
        pytest.skip("this installation of pyautoattack lacks its example")
    model = build_model("resnet18", num_classes=10)
    state = torch.load(weights, weights_only=True, map_location="cpu")
    model.load_state_dict(state | {key: model.state_dict()[key] for key in ("mean", "std")})
    test, _ = load_split(os.fspath(real_images / "cifar10-first.npz"), "test", data_dir=Path())
    x = to_float(test.first(100).pixels)
    folded = fold_batch_norm(model.eval())
    with torch.no_grad():
        assert (model(x) - folded(x)).abs().max() < TOLERANCE
