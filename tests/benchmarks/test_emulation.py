"""Tests of benchmarks.emulation, against the types that PyTorch computes in."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.emulation import EmulatedNetwork, round_to

ONE_PLUS = 1 + 2.0**-10


def build_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 10),
    )


def logits_and_gradients(network: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the logits and the gradients of image and weights, as one vector."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None, cache_enabled=False):
        logits = network(x)
    loss = F.cross_entropy(logits.float(), torch.arange(len(x)))
    gradients = torch.autograd.grad(loss, [x, *network.parameters()])
    return torch.cat([part.detach().float().flatten() for part in (logits, *gradients)])


@pytest.mark.parametrize("arithmetic", ["bfloat16", "float16"])
def test_a_network_rounds_as_under_autocast(arithmetic: str) -> None:
    network, x = build_network(), torch.rand(4, 3, 8, 8)
    exact = logits_and_gradients(network, x)
    real = logits_and_gradients(network, x, getattr(torch, arithmetic))
    emulated = logits_and_gradients(EmulatedNetwork(network, arithmetic), x)  # type: ignore[arg-type]
    num_logits = 4 * 10
    assert torch.equal(emulated[:num_logits], real[:num_logits])
    assert not torch.equal(emulated[:num_logits], exact[:num_logits])
    assert (emulated - real).norm() < 0.5 * (real - exact).norm()


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (ONE_PLUS, ONE_PLUS),  # 10 bits are kept
        (1 + 2.0**-11, 1.0),  # a tie, to even
        (ONE_PLUS + 2.0**-11, 1 + 2.0**-9),  # a tie, to even
        (-(1 + 2.0**-11 + 2.0**-20), -ONE_PLUS),
        (2.0**127 * ONE_PLUS, 2.0**127 * ONE_PLUS),  # the exponent is that of float32
        (0.0, 0.0),
    ],
)
def test_tf32_keeps_ten_bits(value: float, rounded: float) -> None:
    assert round_to(torch.tensor([value]), "tf32").item() == pytest.approx(rounded, rel=1e-6)


def test_tf32_rounds_numbers_in_any_memory_layout() -> None:
    x = torch.rand(2, 3, 4, 4)
    expected = round_to(x, "tf32")
    found = round_to(x.to(memory_format=torch.channels_last), "tf32")
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(round_to(x[:1].expand(2, 3, 4, 4), "tf32")[1], expected[0])


def test_tf32_rounds_inputs_and_no_results() -> None:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1 + 2.0**-12, 1.0]]))
    x = torch.tensor([[1.0, 2.0**-15]])
    assert EmulatedNetwork(network, "tf32")(x).item() == 1 + 2.0**-15


def test_float32_is_the_network_itself() -> None:
    network, x = build_network(), torch.rand(4, 3, 8, 8)
    emulated = logits_and_gradients(EmulatedNetwork(network, "float32"), x)
    assert torch.equal(emulated, logits_and_gradients(network, x))


def test_one_layer_can_stay_exact() -> None:
    network, x = build_network(), torch.rand(4, 3, 8, 8)
    last = network[-1]
    assert isinstance(last, nn.Linear)
    found = EmulatedNetwork(network, "float16", exact=last)(x)
    features = EmulatedNetwork(network[:-1], "float16")(x)
    assert torch.equal(found, last(features))
    assert not torch.equal(found, round_to(found, "float16"))
