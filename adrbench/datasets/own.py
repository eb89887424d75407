"""A user's own data: an `.npz` file, or a folder of images."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.npyio import NpzFile

from adrbench.datasets.decode import decode_images, readable_suffixes
from adrbench.datasets.images import Images, Part, Source
from adrbench.errors import DataError

_BROKEN_FILE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)

#: More than colour and transparency are not channels but an axis in the wrong place.
MOST_CHANNELS = 4


def open_npz(path: Path, name: str) -> Source:
    """Return the source that reads the `.npz` file at `path`, of which only `y_train` is read.

    Images are `x_train`, `x_test` and, optionally, `x_val`: uint8, (N, H, W, C) or (N, H, W).
    Labels are `y_...`: integers, (N,), from 0 to the highest of `y_train`. Raises DataError for a
    file or a `y_train` that cannot be used; reading a part raises it for that part.
    """
    labels = _read_labels(path, "train")
    num_classes = _count_classes(int(labels.max()) + 1, f"y_train in {path}")
    return Source(
        name=name,
        summary=str(path),
        num_classes=num_classes,
        read=partial(_read_npz_part, path, num_classes),
    )


def _read_npz_part(path: Path, num_classes: int, _data_dir: Path, part: Part) -> Images | None:
    if part == "val" and not {"x_val", "y_val"} & set(_npz_keys(path)):
        return None
    labels = _read_labels(path, part)
    if labels.max() >= num_classes:
        raise DataError(
            f"y_{part} in {path} has the label {labels.max()}, but the labels of y_train go from "
            f"0 to {num_classes - 1}: every class must be in the training part."
        )
    pixels = _read_array(path, f"x_{part}")
    if pixels.dtype != np.uint8:
        raise DataError(
            f"x_{part} in {path} has type {pixels.dtype}: it must be uint8, with values 0 to 255."
        )
    if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
        raise DataError(
            f"x_{part} in {path} has shape {pixels.shape}: it must be (N, height, width, channels) "
            "or (N, height, width)."
        )
    if pixels.ndim == 4 and pixels.shape[3] > MOST_CHANNELS:
        raise DataError(
            f"x_{part} in {path} has shape {pixels.shape}, that is {pixels.shape[3]} channels: "
            "put the channels last, (N, height, width, channels)."
        )
    if len(pixels) != len(labels):
        raise DataError(
            f"x_{part} in {path} has {len(pixels)} images but y_{part} has {len(labels)} labels: "
            "they must be as many."
        )
    channels_last = pixels if pixels.ndim == 4 else pixels[..., None]
    channels_first = np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))
    return Images(torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64)))


def _read_labels(path: Path, part: Part) -> npt.NDArray[np.integer]:
    key = f"y_{part}"
    labels = _read_array(path, key)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{key} in {path} has type {labels.dtype}: labels must be integers.")
    if labels.ndim != 1:
        raise DataError(f"{key} in {path} has shape {labels.shape}: it must be (N,).")
    if len(labels) == 0:
        raise DataError(f"{key} in {path} is empty: each part needs at least one image.")
    if labels.min() < 0:
        raise DataError(f"{key} in {path} has the label {labels.min()}: labels start at 0.")
    return labels


def _read_array(path: Path, key: str) -> npt.NDArray[Any]:
    with _opened(path) as arrays:
        if key not in arrays.files:
            raise DataError(
                f"{path} has no {key} but {', '.join(arrays.files) or 'nothing'}: it must hold "
                "x_train, y_train, x_test and y_test, and may hold x_val and y_val."
            )
        try:
            return np.asarray(arrays[key])
        except _BROKEN_FILE as error:
            raise DataError(
                f"{key} in {path} is broken or not a plain array: save it again as an array of "
                "numbers."
            ) from error


def _npz_keys(path: Path) -> list[str]:
    with _opened(path) as arrays:
        return list(arrays.files)


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"cannot open {path} ({error.strerror}): give an .npz file or an image folder."
        ) from error
    with file:
        try:
            arrays = np.load(file, allow_pickle=False)
        except _BROKEN_FILE as error:
            raise DataError(
                f"{path} is not an .npz file, or a broken one: save it again."
            ) from error
        if not isinstance(arrays, NpzFile):
            raise DataError(f"{path} holds a single array: save it as .npz with numpy.savez.")
        with arrays:
            yield arrays


def open_folder(path: Path, name: str) -> Source:
    """Return the source that reads the image folder at `path`; no image is opened yet.

    Images lie anywhere below `train/<class>/` and `test/<class>/`; `val/` stands in for a missing
    `test/`, beside it `val/` is the validation part. Classes are numbered in the order of their
    names in `train/`. Images become RGB. Their order goes round the classes: the first file of
    each by name, the second of each, and so on, so that the first n hold every class alike.
    Raises DataError for missing or empty parts; reading a part raises it for its files.
    """
    classes = _class_folders(path / "train")
    if not (path / "test").is_dir() and not (path / "val").is_dir():
        raise DataError(f"{path} has neither test/ nor val/: put the test images there.")
    num_classes = _count_classes(len(classes), str(path / "train"))
    return Source(
        name=name,
        summary=str(path),
        num_classes=num_classes,
        read=partial(_read_folder_part, path, classes),
    )


def _read_folder_part(path: Path, classes: list[str], _data_dir: Path, part: Part) -> Images | None:
    if not (path / "test").is_dir():
        if part == "val":
            return None
        folder = path / ("val" if part == "test" else part)
    elif part == "val" and not (path / "val").is_dir():
        return None
    else:
        folder = path / part
    unknown = sorted(set(_class_folders(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder} has the class {unknown[0]!r}, which {path / 'train'} lacks.")
    labelled = []
    for label, name in enumerate(classes):
        files = _image_files(folder / name)
        if not files and part == "train":
            raise DataError(f"{folder / name} has no images: add some or remove the folder.")
        labelled += [(rank, label, file) for rank, file in enumerate(files)]
    if not labelled:
        raise DataError(f"{folder} has no images: put them into {folder}/<class>/.")
    labelled.sort()
    labels = torch.tensor([label for _, label, _ in labelled], dtype=torch.int64)
    return Images(decode_images([file for _, _, file in labelled]), labels)


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: an image folder needs train/ and test/.")
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder} ({error.strerror}): make it readable.") from error
    names = sorted(f.name for f in inside if f.is_dir() and not f.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no class folders: put the images into {folder}/<class>/.")
    return names


def _image_files(folder: Path) -> list[Path]:
    """Return what looks like an image below `folder`, sorted; none if there is no such folder."""
    suffixes = readable_suffixes()
    files = []
    for parent, _, names in os.walk(folder, followlinks=True):
        files += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(files)


def _count_classes(num_classes: int, where: str) -> int:
    if num_classes < 2:
        raise DataError(f"{where} has one class only: a classifier needs at least two.")
    return num_classes
