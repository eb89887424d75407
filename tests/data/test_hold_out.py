"""The hold-out split is stratified and depends only on the seed."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrbench.data import Images, load_dataset
from adrbench.data.hold_out import hold_out
from adrbench.errors import UsageError
from messages import assert_one_sentence

NOWHERE = Path("nowhere")


def images_of_labels(labels: list[int]) -> Images:
    """Return images whose pixels are their position."""
    positions = torch.arange(len(labels)) % 256
    return Images(positions.to(torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))


@given(data=st.data())
def test_the_hold_out_split_is_stratified_and_complete(data: st.DataObject) -> None:
    """A class with k of n images contributes k * size / n, rounded up or down."""
    labels = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=60))
    size = data.draw(st.integers(0, len(labels) - 1))
    train, val = hold_out(images_of_labels(labels), size, data.draw(st.integers(0, 9)))
    assert len(val) == size
    positions = [part.pixels.flatten().tolist() for part in (train, val)]
    assert sorted(positions[0] + positions[1]) == list(range(len(labels)))
    assert positions == [sorted(part) for part in positions]
    for part, where in zip((train, val), positions, strict=True):
        assert part.labels.tolist() == [labels[position] for position in where]
    for label in set(labels):
        share = labels.count(label) * size / len(labels)
        assert abs(int((val.labels == label).sum()) - share) < 1


def test_the_validation_part_depends_only_on_the_seed() -> None:
    """The indices must never change: runs would not be comparable with earlier ones."""
    images = images_of_labels([0, 1] * 20)
    chosen = [hold_out(images, 4, seed)[1].pixels.flatten().tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == [11, 22, 34, 35]
    assert chosen[2] != chosen[0]


@pytest.mark.parametrize(("count", "size"), [(9, 0), (10, 1), (1437, 143), (20_000, 1000)])
def test_by_default_1000_images_or_a_tenth_are_held_out(count: int, size: int) -> None:
    train, val = hold_out(images_of_labels([0, 1] * (count // 2) + [0] * (count % 2)), None, 0)
    assert (len(train), len(val)) == (count - size, size)


@pytest.mark.parametrize("size", [-1, 1437, 5000])
def test_an_invalid_validation_size_is_rejected(size: int) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset("digits", data_dir=NOWHERE, val_size=size)
    assert_one_sentence(str(caught.value), f"size is {size}", "from 0 to 1436")
