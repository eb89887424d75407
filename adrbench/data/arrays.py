"""Data sets from a user's arrays, with checks."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.data.builtin import DATASETS
from adrbench.data.images import Dataset, Images, Part, check_num_classes
from adrbench.data.loading import measure_channels
from adrbench.errors import DataError, UsageError

Array = Tensor | npt.NDArray[Any]
#: The images and labels of a part.
Pair = tuple[Array | None, Array | None]

#: Numbers of channels: gray, with transparency, color, with transparency.
CHANNELS = (1, 2, 3, 4)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def make_dataset(
    name: str,
    *,
    train: Pair,
    val: Pair,
    test: Pair,
    num_classes: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Dataset:
    """Return a data set of these splits; arguments and errors are those of `from_arrays`."""
    check_dataset_name(name)
    pairs: dict[Part, Pair] = {"train": train, "val": val, "test": test}
    given = {part: pair for part, pair in pairs.items() if any(a is not None for a in pair)}
    pixels = {part: read_pixels(x, part, name) for part, (x, _) in given.items()}
    labels = {part: read_labels(y, part, name) for part, (_, y) in given.items()}
    if "test" not in given:
        raise UsageError(f"data set {name!r} has no test split: give x_test and y_test.")
    if num_classes is None:
        if "train" not in given:
            raise UsageError(
                f"data set {name!r} has no training labels to count its classes: give num_classes."
            )
        num_classes = int(labels["train"].max()) + 1
    check_num_classes(num_classes, f"data set {name!r}")
    parts = {}
    for part in given:
        parts[part] = join(pixels[part], labels[part], num_classes, part, name)
        check_same_shape(parts, part, name)
    channels = parts["test"].pixels.shape[1]
    nothing = parts["test"].take(torch.empty(0, dtype=torch.int64))
    measured = measure_channels(pixels["train"]) if "train" in given else ((), ())
    return Dataset(
        name=name,
        num_classes=num_classes,
        mean=measured[0] if mean is None else check_statistics(mean, "mean", channels, name),
        std=measured[1] if std is None else check_statistics(std, "std", channels, name),
        published=False,
        train=parts.get("train", nothing),
        val=parts.get("val", nothing),
        test=parts["test"],
    )


def check_dataset_name(name: str) -> None:
    """Raise UsageError unless `name` is valid for a user's data set and in file names."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"the data set name is {name!r}: use letters, digits, dots, dashes and underscores."
        )
    if name.lower() in DATASETS:
        raise UsageError(f"{name!r} is the name of a built-in data set: give another name.")


def read_pixels(x: Array | None, part: Part, name: str) -> Tensor:
    """Return the images of a split as (N, C, H, W) uint8 on the CPU; DataError otherwise."""
    where = f"x_{part} of data set {name!r}"
    pixels = _as_tensor(x, where)
    shape = tuple(pixels.shape)
    if pixels.dtype != torch.uint8:
        raise DataError(
            f"{where} has type {_describe_type(pixels)}: give uint8 images with values 0 to 255, "
            "(255 * x).round() of values in [0, 1]."
        )
    if len(shape) == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS:
        raise DataError(
            f"{where} has shape {shape}, channels last: give (N, channels, height, width), such "
            "as torch.as_tensor(x).permute(0, 3, 1, 2)."
        )
    if len(shape) != 4 or 0 in shape:
        raise DataError(
            f"{where} has shape {shape}: give at least one image, as (N, channels, height, width)."
        )
    return pixels


def read_labels(y: Array | None, part: Part, name: str) -> Tensor:
    """Return the labels of a split as (N,) int64 on the CPU; DataError otherwise."""
    where = f"y_{part} of data set {name!r}"
    labels = _as_tensor(y, where)
    if labels.dtype not in INTEGERS:
        raise DataError(f"{where} has type {_describe_type(labels)}: labels must be integers.")
    if labels.dim() != 1:
        raise DataError(
            f"{where} has shape {tuple(labels.shape)}: give (N,), one class index per image."
        )
    return labels.to(torch.int64)


def join(pixels: Tensor, labels: Tensor, num_classes: int, part: Part, name: str) -> Images:
    """Return the images and labels of a split; DataError if they do not match."""
    if len(pixels) != len(labels):
        raise DataError(
            f"x_{part} of data set {name!r} has {len(pixels)} images but y_{part} has "
            f"{len(labels)} labels: the numbers must be equal."
        )
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < num_classes:
            raise DataError(
                f"y_{part} of data set {name!r} has the label {label}: labels of {num_classes} "
                f"classes go from 0 to {num_classes - 1}."
            )
    return Images(pixels, labels)


def check_same_shape(parts: dict[Part, Images], part: Part, name: str) -> None:
    """Raise DataError if the images of `part` have another shape than those of the first split."""
    first, *_ = parts
    shapes = [tuple(parts[one].pixels.shape[1:]) for one in (first, part)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"data set {name!r} has images of shape {shapes[0]} (channels, height, width) in "
            f"x_{first} and {shapes[1]} in x_{part}: the shapes must be equal."
        )


def check_statistics(
    values: Sequence[float], what: str, channels: int, name: str
) -> tuple[float, ...]:
    """Return a mean or standard deviation per channel; UsageError if it is not usable."""
    numbers = tuple(float(value) for value in values)
    is_usable = all(map(math.isfinite, numbers)) and (what != "std" or min(numbers, default=0) > 0)
    if len(numbers) != channels or not is_usable:
        positive = " positive" if what == "std" else ""
        raise UsageError(
            f"{what} of data set {name!r} is {numbers}: give {channels}{positive} numbers, one per "
            "channel, for pixels in [0, 1]."
        )
    return numbers


def _as_tensor(array: Array | None, where: str) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().cpu().contiguous()
    if not isinstance(array, np.ndarray):
        found = "missing" if array is None else f"a {type(array).__name__}"
        raise DataError(f"{where} is {found}: give a torch tensor or a numpy array.")
    try:
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except TypeError as error:
        raise DataError(f"{where} has type {array.dtype}: give an array of numbers.") from error


def _describe_type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
