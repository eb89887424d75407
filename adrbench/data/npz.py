"""A user's own images in an `.npz` file."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

#: Enough for the header of any array that numpy reads, which is at most 10,000 characters.
HEADER_BYTES = 16_384
#: The key of the optional names of the classes.
CLASS_NAMES = "class_names"


class Header(NamedTuple):
    """The shape and type that an array's header declares."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


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

    def check(header: Header, name: str) -> None:
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


def _check_names(header: Header, name: str) -> None:
    if header.dtype.kind != "U" or len(header.shape) != 1:
        raise DataError(
            f"{name} has type {header.dtype} and shape {header.shape}: it must be an array of "
            "strings, one per class."
        )


def _read_labels(path: Path, part: Part) -> npt.NDArray[np.integer]:
    labels = _read_array(path, f"y_{part}", _check_labels)
    check_label_range(int(labels.min()), int(labels.max()), f"y_{part} in {path}")
    return labels


def _read_array(path: Path, key: str, check: Callable[[Header, str], None]) -> npt.NDArray[Any]:
    """Return an array of an `.npz` file, after passing its header and description to `check`."""
    name = f"{key} in {path}"
    kind = "strings" if key == CLASS_NAMES else "numbers"
    broken = f"{name} is broken or not a plain array: save it again as an array of {kind}."
    with _open_archive(path) as archive:
        members = _find_members(archive)
        if key not in members:
            found = list_first(list(members), MOST_SHOWN)
            raise DataError(
                f"{path} has no {key} but {found or 'nothing'}: it must contain x_test and y_test, "
                "for training x_train and y_train too, and may contain x_val and y_val."
            )
        try:
            header = _read_header(archive, members[key])
        except Exception as error:  # zipfile and numpy may raise anything for a damaged file
            raise DataError(broken) from error
        check(header, name)
        check_memory(members[key].file_size, name)
        try:
            with archive.open(members[key]) as member:
                return np.asarray(npy.read_array(member, allow_pickle=False))
        except Exception as error:
            raise DataError(broken) from error


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """Return the header of `member`; raise ValueError unless the member has the size it implies.

    NumPy itself does not compare the sizes, and returns a member that is not an array as bytes.
    """
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(HEADER_BYTES))
    is_version_1 = npy.read_magic(start) == (1, 0)
    read = npy.read_array_header_1_0 if is_version_1 else npy.read_array_header_2_0
    shape, _, dtype = read(start)
    size = start.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size != member.file_size:
        raise ValueError(f"{member.file_size} bytes of {dtype}, shape {shape}")
    return Header(shape, dtype)


def _find_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def _list_keys(path: Path) -> list[str]:
    with _open_archive(path) as archive:
        return list(_find_members(archive))


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
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
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile may raise anything for a damaged central directory
            raise DataError(f"{path} is not an .npz file or is damaged: save it again.") from error
        with archive:
            yield archive
