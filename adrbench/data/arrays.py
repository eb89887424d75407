"""Data sets from a user's arrays, with checks."""

import math
import operator
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.data.array_checks import (
    as_labels,
    as_tensor,
    check_channels_first,
    check_class_names,
    check_counts,
    check_is_uint8,
    type_name,
)
from adrbench.data.builtin import DATASETS
from adrbench.data.images import Dataset, Images, Part, check_num_classes
from adrbench.data.loading import measure_channels
from adrbench.errors import DataError, UsageError, one_line

Array = Tensor | npt.NDArray[Any]
#: The images and labels of a part.
Pair = tuple[Array | None, Array | None]


def make_dataset(
    name: str,
    *,
    train: Pair,
    val: Pair,
    test: Pair,
    num_classes: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    class_names: Sequence[str] | None = None,
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
    num_classes = check_num_classes(_as_integer(num_classes, name), f"data set {name!r}")
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
        class_names=check_class_names(class_names, num_classes, f"data set {name!r}"),
    )


def _as_integer(num_classes: object, name: str) -> int:
    try:
        return operator.index(num_classes)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(
            f"num_classes of data set {name!r} is {num_classes!r}: give an integer, at least 2."
        ) from error


def check_dataset_name(name: object) -> None:
    """Raise UsageError unless `name` is valid for a user's data set and in file names."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"the data set name is {name!r}: give letters, digits, dots, dashes and underscores."
        )
    if name.lower() in DATASETS:
        raise UsageError(f"{name!r} is the name of a built-in data set: give another name.")


def read_pixels(x: Array | None, part: Part, name: str) -> Tensor:
    """Return the images of a split as (N, C, H, W) uint8 on the CPU; DataError otherwise."""
    where = _describe("x", part, name)
    pixels = as_tensor(_require(x, where), where)
    check_is_uint8(type_name(pixels), where)
    check_channels_first(tuple(pixels.shape), where)
    return pixels


def read_labels(y: Array | None, part: Part, name: str) -> Tensor:
    """Return the labels of a split as (N,) int64 on the CPU; DataError otherwise."""
    where = _describe("y", part, name)
    return as_labels(_require(y, where), where)


def _describe(kind: Literal["x", "y"], part: Part, name: str) -> str:
    return f"{kind}_{part} of data set {name!r}"


def _require(array: Array | None, where: str) -> Array:
    if array is None:
        raise DataError(f"{where} is missing: give images and labels of each split.")
    return array


def join(pixels: Tensor, labels: Tensor, num_classes: int, part: Part, name: str) -> Images:
    """Return the images and labels of a split; DataError if they do not match."""
    check_counts(len(pixels), len(labels), _describe("x", part, name), f"y_{part}")
    highest = int(labels.max())
    if highest >= num_classes:
        raise DataError(
            f"{_describe('y', part, name)} has the label {highest}: labels of {num_classes} "
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


def check_statistics(values: object, what: str, channels: int, name: str) -> tuple[float, ...]:
    """Return a mean or standard deviation per channel; UsageError if it is not usable."""
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = ()
    is_usable = all(map(math.isfinite, numbers)) and (what != "std" or min(numbers, default=0) > 0)
    if len(numbers) != channels or not is_usable:
        positive = " positive" if what == "std" else ""
        raise UsageError(
            f"{what} of data set {name!r} is {one_line(repr(numbers or values))}: give "
            f"{channels}{positive} numbers, one per channel, for pixels in [0, 1]."
        )
    return numbers
