"""Splits, examples and channel statistics."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrbench.data import load_dataset, load_examples, load_split
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


def test_the_fingerprint_of_training_images_does_not_depend_on_what_is_held_out() -> None:
    parts = [
        load_dataset("digits", data_dir=NOWHERE, val_size=size, seed=seed)
        for size, seed in ((40, 0), (40, 1), (80, 0))
    ]
    assert len({part.train.sha256() for part in parts}) == 3
    fingerprints = {part.training_images_sha256 for part in parts}
    assert fingerprints == {load_split("digits", "train", data_dir=NOWHERE)[0].sha256()}


@pytest.mark.parametrize(
    ("own_val", "val_size", "is_drawn"),
    [(False, None, True), (False, 3, True), (False, 0, False), (True, None, False)],
)
def test_whether_validation_images_were_drawn(
    own_val: bool, val_size: int | None, is_drawn: bool, tmp_path: Path
) -> None:
    parts = ("train", "test", "val") if own_val else ("train", "test")
    arrays: dict[str, Any] = {f"x_{part}": np.zeros((20, 8, 8), np.uint8) for part in parts}
    arrays |= {f"y_{part}": np.arange(20) % 2 for part in parts}
    np.savez(tmp_path / "own.npz", **arrays)
    loaded = load_dataset(str(tmp_path / "own.npz"), data_dir=NOWHERE, val_size=val_size)
    assert loaded.val_is_drawn == is_drawn


def test_the_fingerprint_covers_a_validation_part_of_the_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.array([0, 1, 0, 1])
    found = set()
    for name, shift in (("one", 0), ("other", 1)):
        path = tmp_path / name / "own.npz"
        path.parent.mkdir()
        np.savez(path, **(arrays | {"x_val": arrays["x_val"] // 2 + shift}))
        for val_size in (None, 0):
            loaded = load_dataset(str(path), data_dir=NOWHERE, val_size=val_size)
            found.add((name, loaded.training_images_sha256))
    assert len({fingerprint for _, fingerprint in found}) == len(found) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dataset": 3}, "dataset is 3: give a name, a path or an adrbench.Dataset."),
        ({"n": "5"}, "n is '5', but it must be an integer from 1 to 360, the number of images."),
        ({"n": 5.0}, "n is 5.0, but it must be an integer from 1 to 360"),
        ({"split": ["test"]}, "unknown split "),
        ({"data_dir": None}, "data_dir is None: give a path."),
    ],
)
def test_arguments_of_another_type(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        load_examples(**{"dataset": "digits", **arguments})


def test_a_path_and_a_number_of_numpy_are_accepted(tmp_path: Path) -> None:
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    np.savez(tmp_path / "own.npz", x_test=x, y_test=y)
    n: Any = np.int64(3)
    assert load_examples(tmp_path / "own.npz", n=n)[0].shape == (3, 1, 8, 8)
