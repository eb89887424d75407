"""Fingerprints depend on values only, not on layout or the order of keys."""

import pytest
import torch
from torch import Tensor

from adrbench.runtime.hashing import hash_json, tensor_bytes


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
