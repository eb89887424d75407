"""Crops and flips equal torchvision's, per image and in distribution; epochs are resumable."""

import math
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import transforms

from adrbench.data import Images, epoch_batches, random_crop_flip, steps_per_epoch, to_float
from adrbench.data.augmentation import Crops, crop_and_flip
from adrbench.errors import DataError, UsageError
from adrbench.runtime.seeds import generator

PADDING = 4
SIDE = 9
OFFSETS = 2 * PADDING + 1
#: All pixels differ from each other and from the padding, so that a crop identifies its position.
MARKED = torch.arange(1, SIDE * SIDE + 1, dtype=torch.uint8).view(1, SIDE, SIDE)


def numbered(count: int, *, side: int = 4) -> Images:
    """Return `count` images; all pixels of an image and its label are its index."""
    labels = torch.arange(count)
    return Images(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side), labels)


def counting(*shape: int) -> Tensor:
    """Return uint8 pixels 1, 2, ..., 255, 1, ...: adjacent pixels differ and none is 0."""
    return (torch.arange(math.prod(shape)) % 255 + 1).to(torch.uint8).view(shape)


def crop_one(image: Tensor, row: int, column: int, flip: bool, padding: int) -> Tensor:
    """Return torchvision's crop of one (C, H, W) image."""
    height, width = image.shape[1:]
    cropped: Tensor = TF.crop(TF.pad(image, [padding]), row, column, height, width)
    flipped: Tensor = TF.hflip(cropped)
    return flipped if flip else cropped


def chi_square_p(
    counts: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], dof: int
) -> float:
    """Return the p-value of Pearson's chi-square test with `dof` degrees of freedom."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(torch.special.gammaincc(torch.tensor(dof / 2), torch.tensor(statistic / 2)))


def independence_p(table: npt.NDArray[np.float64]) -> float:
    """Return the p-value of Pearson's test that rows and columns of `table` are independent."""
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return chi_square_p(table, expected, (table.shape[0] - 1) * (table.shape[1] - 1))


def tally(numbers: list[int]) -> npt.NDArray[np.float64]:
    return np.bincount(numbers, minlength=2 * OFFSETS**2).astype(np.float64)


@cache
def outcomes() -> dict[bytes, int]:
    """Return every possible outcome for MARKED, numbered in the order (row, column, flip)."""
    draws = product(range(OFFSETS), range(OFFSETS), (False, True))
    crops = [crop_one(MARKED, row, column, flip, PADDING) for row, column, flip in draws]
    return {crop.numpy().tobytes(): number for number, crop in enumerate(crops)}


def outcome_numbers(crops: Tensor) -> list[int]:
    return [outcomes()[crop.numpy().tobytes()] for crop in crops]


@cache
def our_outcomes() -> list[int]:
    """Return the outcomes of 16,200 draws, in batches of 100: 100 expected of each of 162."""
    draws = generator("cpu", 0, "test")
    batch = MARKED.expand(100, 1, SIDE, SIDE)
    return [
        number
        for _ in range(162)
        for number in outcome_numbers(
            random_crop_flip(batch, padding=PADDING, flip=True, generator=draws)
        )
    ]


@given(st.data())
def test_each_crop_equals_torchvisions(data: st.DataObject) -> None:
    num, channels, height, width = (data.draw(st.integers(1, 5)) for _ in range(4))
    padding = data.draw(st.integers(0, 3))
    offsets = st.lists(st.integers(0, 2 * padding), min_size=num, max_size=num)
    rows, columns = data.draw(offsets), data.draw(offsets)
    flips = data.draw(st.lists(st.booleans(), min_size=num, max_size=num))
    pixels = counting(num, channels, height, width)
    crops = Crops(torch.tensor(rows), torch.tensor(columns), torch.tensor(flips))
    expected = [
        crop_one(image, row, column, flip, padding)
        for image, row, column, flip in zip(pixels, rows, columns, flips, strict=True)
    ]
    assert torch.equal(crop_and_flip(pixels, crops, padding=padding), torch.stack(expected))


def test_every_offset_and_flip_is_distinguished_and_reproduced() -> None:
    draws = list(product(range(OFFSETS), range(OFFSETS), (False, True)))
    rows, columns, flips = (torch.tensor(column) for column in zip(*draws, strict=True))
    batch = MARKED.expand(len(draws), 1, SIDE, SIDE)
    cropped = crop_and_flip(batch, Crops(rows, columns, flips), padding=PADDING)
    assert outcome_numbers(cropped) == list(range(len(draws)))


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    assert chi_square_p(tally(our_outcomes()), np.full(162, 100.0), 161) > 0.01


def test_crops_have_the_distribution_of_torchvisions() -> None:
    transform = transforms.Compose(
        [transforms.RandomCrop(SIDE, PADDING), transforms.RandomHorizontalFlip()]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = outcome_numbers(torch.stack([transform(MARKED) for _ in range(3240)]))
    assert independence_p(np.stack([tally(our_outcomes()), tally(reference)])) > 0.01


def test_consecutive_images_in_a_batch_are_independent() -> None:
    rows = [number // (2 * OFFSETS) for number in our_outcomes()]
    columns = [number // 2 % OFFSETS for number in our_outcomes()]
    flips = [number % 2 for number in our_outcomes()]
    for values, levels in ((rows, OFFSETS), (columns, OFFSETS), (flips, 2)):
        pairs = np.zeros((levels, levels))
        for pair in pairwise(values):
            pairs[pair] += 1
        assert independence_p(pairs) > 0.01


def test_flips_can_be_turned_off() -> None:
    batch = MARKED.expand(200, 1, SIDE, SIDE)
    cropped = random_crop_flip(batch, padding=PADDING, flip=False, generator=generator("cpu", 0))
    numbers = outcome_numbers(cropped)
    assert all(number % 2 == 0 for number in numbers)
    assert len(set(numbers)) > 1


def test_no_padding_and_no_flip_is_the_identity() -> None:
    pixels = counting(7, 3, 5, 6)
    cropped = random_crop_flip(pixels, padding=0, flip=False, generator=generator("cpu", 0))
    assert torch.equal(cropped, pixels)


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(10, 3, 3), (9, 3, 3), (3, 3, 1)])
def test_an_epoch_has_each_image_once_and_drops_the_incomplete_batch(
    count: int, batch_size: int, steps: int
) -> None:
    batches = list(
        epoch_batches(numbered(count), batch_size=batch_size, seed=0, epoch=0, padding=0, flip=True)
    )
    assert steps_per_epoch(count, batch_size) == len(batches) == steps
    labels = torch.cat([y for _, y in batches])
    assert len(set(labels.tolist())) == len(labels) == steps * batch_size
    for x, y in batches:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert torch.equal(x, (y / 255).view(-1, 1, 1, 1).expand(-1, 3, 4, 4))


def test_to_float_maps_0_to_255_onto_0_to_1() -> None:
    scaled = to_float(torch.arange(256, dtype=torch.uint8))
    assert torch.equal(scaled, torch.arange(256, dtype=torch.float32) / 255)


@given(first_step=st.integers(0, 6), seed=st.integers(-5, 5), epoch=st.integers(0, 300))
def test_an_epoch_resumed_at_a_step_has_the_same_batches(
    first_step: int, seed: int, epoch: int
) -> None:
    images = Images(counting(23, 1, 3, 3), torch.arange(23))

    def run(start: int) -> list[tuple[Tensor, Tensor]]:
        torch.rand(3)  # other draws in between must have no effect
        return list(
            epoch_batches(
                images,
                batch_size=4,
                seed=seed,
                epoch=epoch,
                padding=1,
                flip=True,
                first_step=start,
            )
        )

    whole, rest = run(0), run(first_step)
    assert len(rest) == max(0, 5 - first_step)
    for (x, y), (x_again, y_again) in zip(whole[first_step:], rest, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_order_and_crops_change_with_seed_and_epoch(other: dict[str, Any]) -> None:
    def run(place: dict[str, Any], images: Images) -> tuple[Tensor, Tensor]:
        return next(
            epoch_batches(
                images, batch_size=100, padding=4, flip=True, **{"seed": 0, "epoch": 0, **place}
            )
        )

    identical = Images(MARKED.expand(100, 1, SIDE, SIDE), torch.arange(100))
    (x, y), (x_other, y_other) = run({}, identical), run(other, identical)
    assert not torch.equal(y, y_other)
    assert not torch.equal(x, x_other)


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_the_shares_of_a_batch_add_up_to_it(num_parts: int) -> None:
    def batches(share: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
        images = Images(counting(40, 3, 8, 8), torch.arange(40))
        return list(
            epoch_batches(
                images,
                batch_size=12,
                seed=0,
                epoch=3,
                padding=2,
                flip=True,
                first_step=1,
                share=share,
            )
        )

    parts = [batches((part, num_parts)) for part in range(num_parts)]
    for (x, y), *shares in zip(batches((0, 1)), *parts, strict=True):
        assert torch.equal(torch.cat([share[0] for share in shares]), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), y)


def test_the_global_generator_is_unchanged() -> None:
    before = torch.get_rng_state()
    list(epoch_batches(numbered(8), batch_size=4, seed=0, epoch=0, padding=1, flip=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("wrong", "error", "names"),
    [
        ({"batch_size": 11}, DataError, ["10 images", "batch of 11", "--batch-size 10"]),
        ({"batch_size": 0}, UsageError, ["batch size is 0", "at least 1"]),
        ({"padding": -1}, UsageError, ["padding is -1", "at least 0"]),
        ({"first_step": -2}, UsageError, ["first step is -2", "at least 0"]),
        ({"batch_size": 7, "share": (0, 3)}, UsageError, ["7 images", "3 pro", "size 6 or 9"]),
        ({"share": (1, 3)}, UsageError, ["2 images", "--batch-size 3."]),
    ],
)
def test_invalid_arguments_are_rejected_at_the_call(
    wrong: dict[str, Any], error: type[Exception], names: list[str]
) -> None:
    request: dict[str, Any] = {"batch_size": 2, "seed": 0, "epoch": 0, "padding": 1, **wrong}
    with pytest.raises(error) as caught:
        epoch_batches(numbered(10), flip=True, **request)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_a_gpu() -> None:
    images = Images(counting(40, 3, 8, 8), torch.arange(40))
    request: dict[str, Any] = {"batch_size": 16, "seed": 0, "epoch": 2, "padding": 2}
    on_cpu = epoch_batches(images, flip=True, **request)
    on_cuda = epoch_batches(images.to("cuda"), flip=True, **request)
    for (x, y), (x_cuda, y_cuda) in zip(on_cpu, on_cuda, strict=True):
        assert x_cuda.is_cuda
        torch.testing.assert_close(x_cuda.cpu(), x)  # the device's division may round differently
        assert torch.equal(y_cuda.cpu(), y)
