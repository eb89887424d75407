"""Fingerprints depend on values only, not on layout or the order of keys."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.runtime.hashing import hash_json, hash_weights, tensor_bytes


def test_the_hash_of_a_json_value_is_that_of_its_text_with_sorted_keys() -> None:
    """The expected value is `printf '{"a": [1, null], "b": 0.5}' | sha256sum`."""
    expected = "00bbcdc3775f18a0227bc87e41621b96eeac1e75c9017cbe9c8e870301ab6e33"
    assert hash_json({"b": 0.5, "a": [1, None]}) == expected


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor(7),
        torch.empty(0, 3),
        torch.tensor([True, False]),
        torch.ones(3, requires_grad=True),
        torch.arange(4.0).reshape(1, 4)[:, ::2][:, 1:],
    ],
    ids=["transposed", "channels_last", "scalar", "empty", "bool", "requires_grad", "strided"],
)
def test_tensor_bytes_are_numpys_in_row_major_order(tensor: Tensor) -> None:
    assert bytes(tensor_bytes(tensor)) == tensor.detach().numpy().tobytes()


def test_tensor_bytes_support_bfloat16() -> None:
    """1 is 0x3F80 in bfloat16, stored with the low byte first."""
    assert bytes(tensor_bytes(torch.ones(2, dtype=torch.bfloat16))) == b"\x80\x3f\x80\x3f"
    one_of_two = torch.ones(1, 4, dtype=torch.bfloat16)[:, ::2][:, :1]
    assert bytes(tensor_bytes(one_of_two)) == b"\x80\x3f"


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:.*quantize")
def test_every_weight_of_a_quantized_network_counts() -> None:
    """The text of a tensor of more than 1,000 numbers shows only the first and the last."""
    quantize: Any = torch.ao.quantization.quantize_dynamic
    hashes = []
    for change in (0.0, 0.0, 0.5):
        layer = nn.Linear(64, 32)
        weight = torch.linspace(-1, 1, 2048).view(32, 64)
        weight[16, 32] += change
        layer.load_state_dict({"weight": weight, "bias": torch.zeros(32)})
        hashes.append(hash_weights(quantize(nn.Sequential(layer), {nn.Linear})))
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_modules_add_to_a_state_dict_counts() -> None:
    class Extra(nn.Module):
        def __init__(self, extra: object) -> None:
            super().__init__()
            self.extra = extra

        def get_extra_state(self) -> object:
            return self.extra

    tensor = torch.zeros(2000)
    changed = tensor.index_fill(0, torch.tensor(1000), 1)
    extras = ["a", "b", [tensor, 1], [tensor, 2], (changed, 1), {"a": 1}, tensor, changed]
    assert len({hash_weights(Extra(extra)) for extra in extras}) == len(extras)
