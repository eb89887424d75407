"""From what the user calls a data set to its parts in memory."""

import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adrbench.data.builtin import DATASETS
from adrbench.data.folder import open_folder
from adrbench.data.images import Dataset, Images, Source, to_float
from adrbench.data.npz import open_npz
from adrbench.errors import DataError, UsageError, unknown_name
from adrbench.runtime.seeds import derive_seed

MAX_VAL_SIZE = 1000


def dataset_name(dataset: str) -> str:
    """Return the short name of `dataset` for use in file names, without reading anything.

    That is the name in the table, or for a path its last component without `.npz`, with other
    characters than letters, digits, dot, dash and underscore replaced; "-npz" or "-folder" is
    added where that would be a name of the table. Raises UsageError for an unknown name.
    """
    if dataset in DATASETS:
        return dataset
    path = _own_path(dataset)
    is_npz = path.suffix.lower() == ".npz" and not os.path.isdir(path)
    stem = path.stem if is_npz else os.path.basename(os.path.realpath(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "data"
    if name.lower() in DATASETS:
        return f"{name}-npz" if is_npz else f"{name}-folder"
    return name


def find_source(dataset: str) -> Source:
    """Return the source of `dataset`: a name of the table, an `.npz` file or an image folder.

    Raises UsageError for an unknown name, DataError for a path that cannot be used.
    """
    name = dataset_name(dataset)
    if dataset in DATASETS:
        return DATASETS[dataset]
    path = _own_path(dataset)
    return open_folder(path, name) if os.path.isdir(path) else open_npz(path, name)


def load_dataset(
    dataset: str, *, data_dir: Path, val_size: int | None = None, seed: int = 0
) -> Dataset:
    """Read all parts of `dataset`, holding out `val_size` training images for validation.

    None stands for 1,000 or, on small sets, 10 % of the training images; 0 for no validation
    part. Which images is drawn from `seed`, every class in proportion. A data set's own validation
    part is used whole instead, and none is held out. The mean and standard deviation of a user's
    own data are those of all its training images. Raises UsageError for an unknown name or an
    impossible `val_size`, DataError for missing or broken data.
    """
    source = find_source(dataset)
    train = source.read_part(data_dir, "train")
    val = source.read(data_dir, "val")
    test = source.read_part(data_dir, "test")
    for part, images in (("validation", val), ("test", test)):
        if images is not None:
            _check_same_shape(source, train, part, images)
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = measure_channels(train.pixels)
    if val is None:
        train, val = hold_out(train, val_size, seed)
    elif val_size == 0:
        val = Images(val.pixels[:0], val.labels[:0])
    elif val_size is not None:
        raise UsageError(
            f"the validation size is {val_size}, but {source.name} comes with {len(val)} "
            "validation images of its own: leave the size out to use them, or give 0 for none."
        )
    return Dataset(
        name=source.name,
        num_classes=source.num_classes,
        mean=mean,
        std=std,
        published=source.published,
        train=train,
        val=val,
        test=test,
    )


def load_split(
    dataset: str, split: Literal["train", "test"], *, data_dir: Path
) -> tuple[Images, Source]:
    """Read one part of `dataset`, whole and in official order, and what is known about it.

    Reads nothing else where the data set's layout allows that. Raises what `load_dataset` raises,
    and UsageError for another split.
    """
    if split not in ("train", "test"):
        raise unknown_name("split", split, ("train", "test"))
    source = find_source(dataset)
    return source.read_part(data_dir, split), source


def load_examples(
    dataset: str,
    n: int | None = None,
    split: Literal["train", "test"] = "test",
    data_dir: str | Path = "data",
) -> tuple[Tensor, Tensor]:
    """Return the first `n` examples of a split, or all, in official order.

    x is (N, C, H, W) float32 in [0, 1], y (N,) int64, both on the CPU. Raises what `load_split`
    raises, and UsageError unless 1 <= n <= the number of images.
    """
    images, _ = load_split(dataset, split, data_dir=Path(data_dir))
    chosen = images if n is None else images.first(n)
    return to_float(chosen.pixels), chosen.labels


def hold_out(train: Images, val_size: int | None, seed: int) -> tuple[Images, Images]:
    """Split training images into those that stay and `val_size` for validation, both in order.

    Every class gives in proportion to its size, to within one image. None stands for 1,000 or, on
    small sets, 10 %. Raises UsageError unless 0 <= val_size < len(train).
    """
    size = min(MAX_VAL_SIZE, len(train) // 10) if val_size is None else val_size
    if not 0 <= size < len(train):
        raise UsageError(
            f"the validation size is {size}, but it must be from 0 to {len(train) - 1}: it is "
            f"taken from {len(train)} training images."
        )
    labels = train.labels.cpu().numpy()
    # The raw stream of a bit generator never changes, unlike what is derived from it.
    draws = np.random.PCG64(derive_seed(seed, "validation")).random_raw(len(train))
    by_class = np.lexsort((draws, labels))
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    quotas, remainders = np.divmod(counts * size, len(train))
    largest = np.lexsort((draws[by_class][first], -remainders))
    quotas[largest[: size - quotas.sum()]] += 1
    rank = np.arange(len(train)) - np.repeat(first, counts)
    held_out = np.zeros(len(train), bool)
    held_out[by_class] = rank < np.repeat(quotas, counts)
    stays, goes = (torch.from_numpy(np.flatnonzero(part)) for part in (~held_out, held_out))
    return train.take(stays), train.take(goes)


def measure_channels(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of (N, C, H, W) uint8, as fractions of 255.

    A channel that never changes gets 1 as its deviation, so that dividing by it is harmless.
    """
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in pixels.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).cpu().numpy()
        weights = counts / counts.sum()
        mean = float(weights @ levels)
        variance = float(weights @ (levels - mean) ** 2)
        means.append(mean)
        deviations.append(variance**0.5 if np.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(deviations)


def _own_path(dataset: str) -> Path:
    """Return the path that `dataset` is; UsageError for what is not meant as one."""
    try:
        path = Path(dataset).expanduser()
        os.path.realpath(path)
    except (RuntimeError, ValueError) as error:  # "~nobody", or characters that no path can have
        raise UsageError(
            f"dataset {dataset!r} is not a path ({error}): give an .npz file or an image folder."
        ) from error
    looks_like_path = path.suffix.lower() == ".npz" or "/" in dataset or "\\" in dataset
    if not dataset or not (looks_like_path or os.path.exists(path)):
        raise unknown_name("dataset", dataset, [*DATASETS, "an .npz file or an image folder"])
    return path


def _check_same_shape(source: Source, train: Images, part: str, images: Images) -> None:
    expected, found = (tuple(i.pixels.shape[1:]) for i in (train, images))
    if expected != found:
        raise DataError(
            f"{source.summary} has {part} images of shape {found} (channels, height, width) but "
            f"training images of shape {expected}: they must be alike."
        )
