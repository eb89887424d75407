"""A user's own images in an `.npz` file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt
import torch

from adrbench.data.array_checks import (
    MAX_CHANNELS,
    MAX_CLASSES,
    check_class_names,
    check_counts,
    check_is_uint8,
    check_label_range,
    check_label_type,
)
from adrbench.data.images import Images, Part, Source, check_num_classes
from adrbench.data.memory import check_memory
from adrbench.errors import MOST_SHOWN, DataError, list_first
from adrbench.runtime.files import open_limited
from adrbench.runtime.memory import total_memory
from adrbench.runtime.npz import Arrays, Header

#: The key of the optional names of the classes.
CLASS_NAMES = "class_names"
#: A longer name of a class, in characters, or longer names of all, in bytes, are not read.
MAX_NAME_LENGTH, MAX_NAMES_BYTES = 10_000, 2**27
#: More labels of a training split without images are not read.
MAX_LABELS_ALONE = 2**24


def open_npz(path: Path, name: str) -> Source:
    """Return the source that reads the `.npz` file at `path`; only labels are read now.

    Images are `x_train`, `x_test` and, optionally, `x_val`: uint8, (N, H, W, C) or (N, H, W).
    Labels are `y_...`: integers, (N,), from 0 to the maximum of `y_train`. For attacks, a test
    split is enough; the maximum of `y_test` is then a lower bound of the highest class, unless
    there are `class_names`: strings, one per class. Raises DataError for an invalid file, invalid
    names, or invalid labels of the training split, or of the only split; reading a split raises it
    for that split.
    """
    keys = _list_keys(path)
    has_classes = "y_train" in keys
    part: Part = "train" if has_classes else "test"
    highest = int(_read_labels(path, part).max())
    num_classes = highest + 1
    names = _read_array(path, CLASS_NAMES, _check_names) if CLASS_NAMES in keys else None
    if names is not None and not has_classes:
        num_classes, has_classes = max(num_classes, len(names)), True
    if has_classes:
        check_num_classes(num_classes, f"y_{part} in {path}")
    return Source(
        name=name,
        summary=str(path),
        num_classes=num_classes,
        classes_are_known=has_classes,
        read=partial(_read_npz_part, path, num_classes if has_classes else MAX_CLASSES),
        class_names=check_class_names(names, num_classes, str(path)),
    )


def _read_npz_part(path: Path, num_classes: int, _data_dir: Path, part: Part) -> Images | None:
    keys = _list_keys(path)
    if part == "val" and not {"x_val", "y_val"} & set(keys):
        return None
    if part == "train" and not {"x_train", "y_train"} & set(keys):
        raise DataError(
            f"{path} has no training images, only a test split: it can be used for attacks, but "
            "training needs x_train and y_train too."
        )
    labels = _read_labels(path, part)
    if labels.max() >= num_classes:
        raise DataError(
            f"y_{part} in {path} has the label {labels.max()}, but the labels of y_train go from "
            f"0 to {num_classes - 1}: every class must be in the training split."
        )

    def check(_: Arrays, header: Header, name: str) -> None:
        _check_pixels(header, name)
        check_counts(header.shape[0], len(labels), name, f"y_{part}")

    pixels = _read_array(path, f"x_{part}", check)
    channels_last = pixels if pixels.ndim == 4 else pixels[..., None]
    channels_first = np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))
    return Images(torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64)))


def _check_pixels(header: Header, name: str) -> None:
    shape, dtype = header
    check_is_uint8(str(dtype), name)
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(
            f"{name} has shape {shape}: it must be (N, height, width, channels) or "
            "(N, height, width)."
        )
    if len(shape) == 4 and shape[3] > MAX_CHANNELS:
        raise DataError(
            f"{name} has shape {shape}, with {shape[3]} channels: put the channels last, "
            "(N, height, width, channels)."
        )


def _check_labels(header: Header, name: str) -> None:
    is_integer = header.dtype.kind in "iu"
    check_label_type(str(header.dtype), header.shape, name, is_integer=is_integer)


def _check_names(_: Arrays, header: Header, name: str) -> None:
    shape, dtype = header
    if dtype.kind != "U" or len(shape) != 1:
        raise DataError(
            f"{name} has type {dtype} and shape {shape}: it must be an array of strings, one per "
            "class."
        )
    length = dtype.itemsize // 4
    if shape[0] > MAX_CLASSES or length > MAX_NAME_LENGTH or header.num_bytes > MAX_NAMES_BYTES:
        raise DataError(
            f"{name} has {shape[0]:,} names of up to {length:,} characters: at most "
            f"{MAX_CLASSES:,} names of {MAX_NAME_LENGTH:,} characters are read, and "
            f"{MAX_NAMES_BYTES // 2**20} MiB of all; give shorter names."
        )


def _read_labels(path: Path, part: Part) -> npt.NDArray[np.integer]:
    """Return the labels of a split, as many as its images according to their header.

    The labels of the training split may be without images, for attacks.
    """
    images = f"x_{part}"

    def check(arrays: Arrays, header: Header, name: str) -> None:
        _check_labels(header, name)
        if images in arrays.members:
            pixels, described = _read_header(arrays, images, path), f"{images} in {path}"
            _check_pixels(pixels, described)
            check_counts(pixels.shape[0], header.shape[0], described, f"y_{part}")
        elif header.shape[0] > MAX_LABELS_ALONE:
            raise DataError(
                f"{name} has {header.shape[0]:,} labels, without images: at most "
                f"{MAX_LABELS_ALONE:,} are read; add {images}, or leave out labels."
            )

    labels = _read_array(path, f"y_{part}", check)
    check_label_range(int(labels.min()), int(labels.max()), f"y_{part} in {path}")
    return labels


def _read_array(
    path: Path, key: str, check: Callable[[Arrays, Header, str], None]
) -> npt.NDArray[Any]:
    """Return an array of an `.npz` file, after passing its header and description to `check`."""
    name = f"{key} in {path}"
    with _open_arrays(path) as arrays:
        header = _read_header(arrays, key, path)
        check(arrays, header, name)
        check_memory(header.num_bytes, name)
        try:
            return arrays.read(key)
        except Exception as error:
            raise _broken(name, key) from error


def _read_header(arrays: Arrays, key: str, path: Path) -> Header:
    """Return the header of an array; DataError where it is missing or broken."""
    if key not in arrays.members:
        found = list_first(list(arrays.members), MOST_SHOWN)
        raise DataError(
            f"{path} has no {key} but {found or 'nothing'}: it must contain x_test and y_test, "
            "for training x_train and y_train too, and may contain x_val and y_val."
        )
    try:
        return arrays.read_header(key)
    except Exception as error:  # zipfile and numpy may raise anything for a damaged file
        raise _broken(f"{key} in {path}", key) from error


def _broken(name: str, key: str) -> DataError:
    kind = "strings" if key == CLASS_NAMES else "numbers"
    return DataError(f"{name} is broken or not a plain array: save it again as an array of {kind}.")


def _list_keys(path: Path) -> list[str]:
    with _open_arrays(path) as arrays:
        return list(arrays.members)


@contextmanager
def _open_arrays(path: Path) -> Iterator[Arrays]:
    try:
        file = open_limited(path, total_memory())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot open {path} ({reason}): give an .npz file or an image folder."
        ) from error
    with file:
        if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise DataError(f"{path} contains a single array: save it as .npz with numpy.savez.")
        try:
            arrays = Arrays(file)
        except Exception as error:  # zipfile may raise anything for a damaged central directory
            raise DataError(f"{path} is not an .npz file or is damaged: save it again.") from error
        yield arrays
