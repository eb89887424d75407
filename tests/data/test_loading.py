"""Splits, examples and channel statistics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrbench.data import load_examples, load_split
from adrbench.data.loading import measure_channels
from adrbench.errors import UsageError
from messages import assert_one_sentence

NOWHERE = Path("nowhere")


@pytest.mark.parametrize("n", [0, -1, 361])
def test_more_images_than_there_are_is_an_error(n: int) -> None:
    with pytest.raises(UsageError) as caught:
        load_examples("digits", n=n)
    assert_one_sentence(str(caught.value), f"n is {n}", "360")


def test_examples_are_the_first_of_the_split() -> None:
    x, y = load_examples("digits", n=5)
    images, _ = load_split("digits", "test", data_dir=NOWHERE)
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), images.pixels[:5])
    assert torch.equal(y, images.labels[:5])
    assert len(load_examples("digits", split="train")[1]) == 1437


@given(levels=st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_channel_statistics_equal_numpys(levels: list[int]) -> None:
    first = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    mean, std = measure_channels(torch.cat([first, torch.full_like(first, 51)], dim=1))
    fractions = np.array(levels) / 255
    expected = 1.0 if len(set(levels)) == 1 else fractions.std()
    assert mean == pytest.approx((fractions.mean(), 0.2))
    assert std == pytest.approx((expected, 1.0))
