"""Loading of a whole data set, of one split, or of its first examples."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adrbench.data.builtin import DATASETS
from adrbench.data.find_source import find_source
from adrbench.data.hold_out import hold_out
from adrbench.data.images import Dataset, Images, Source, to_float
from adrbench.data.published_images import are_published_training_images, published_name
from adrbench.errors import DataError, UsageError, unknown_name
from adrbench.runtime.files import to_path


def load_dataset(
    dataset: str | Dataset, *, data_dir: Path, val_size: int | None = None, seed: int = 0
) -> Dataset:
    """Read all splits of `dataset`, holding out `val_size` training images for validation.

    None means 1,000 or, on small sets, 10 % of the training images; 0 means no validation images.
    They are drawn from `seed`, stratified by class. If the data set has its own validation split,
    it is used in full and nothing is held out. The mean and standard deviation of a user's own data
    are those of all its training images. A user's own data whose test split is a published test set
    is marked as such; if its training images are the published ones too, it is treated as that data
    set. Raises UsageError for an unknown name or an invalid `val_size`, DataError for missing or
    broken data.
    """
    source = find_source(dataset, data_dir)
    train = source.read_part(data_dir, "train")
    val = source.read(data_dir, "val")
    test = source.read_part(data_dir, "test")
    for part, images in (("validation", val), ("test", test)):
        if images is not None:
            _check_same_shape(source, train, part, images)
    source = source.with_class_names(data_dir)
    recognized = recognize(source, test)
    if recognized is not source:
        is_whole = val is None and are_published_training_images(train, recognized.name)
        source = recognized if is_whole else replace(source, published=True)
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = measure_channels(train.pixels)
    training_images_sha256 = fingerprint_training_images(train, val)
    has_no_val = val is None
    if val is None:
        train, val = hold_out(train, val_size, seed)
    elif val_size == 0:
        val = Images(val.pixels[:0], val.labels[:0])
    elif val_size is not None:
        raise UsageError(
            f"the validation size is {val_size}, but {source.name} has its own {len(val)} "
            "validation images: omit the size to use them, or give 0 for none."
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
        training_images_sha256=training_images_sha256,
        val_is_drawn=has_no_val and len(val) > 0,
        class_names=source.class_names,
    )


def fingerprint_training_images(train: Images, val: Images | None) -> str:
    """Return a fingerprint, in hexadecimal, of a source's training and own validation images."""
    if val is None:
        return train.sha256()
    return hashlib.sha256(f"{train.sha256()} {val.sha256()}".encode()).hexdigest()


def load_split(
    dataset: str | Dataset, split: Literal["train", "test"], *, data_dir: Path
) -> tuple[Images, Source]:
    """Return one whole split of `dataset` in official order, and its source.

    Reads no other split if the data set's layout allows it. A test split that is a published test
    set has the source of that data set, regardless of its file. Raises what `load_dataset` raises,
    and UsageError for an unknown split.
    """
    if split not in ("train", "test"):
        raise unknown_name("split", str(split), ("train", "test"))
    source = find_source(dataset, data_dir)
    images = source.read_part(data_dir, split)
    source = source.with_class_names(data_dir)
    return images, recognize(source, images) if split == "test" else source


def recognize(source: Source, test: Images) -> Source:
    """Return the source of a user's own data, as that of a published data set if it is one.

    Its `test` part is then that data set's published test set.
    """
    if source.published:
        return source
    name = published_name(test)
    if name is None:
        return source
    official = DATASETS[name]
    if source.classes_are_known and source.num_classes != official.num_classes:
        return source
    return replace(official, summary=source.summary, read=source.read)


def load_examples(
    dataset: str | Path | Dataset,
    n: int | None = None,
    split: Literal["train", "test"] = "test",
    data_dir: str | Path = "data",
) -> tuple[Tensor, Tensor]:
    """Return the first `n` examples of a split, or all, in official order.

    x is (N, C, H, W) float32 in [0, 1], y (N,) int64, both on the CPU. Raises what `load_split`
    raises, and UsageError unless 1 <= n <= the number of images.
    """
    name = str(dataset) if isinstance(dataset, Path) else dataset
    images, _ = load_split(name, split, data_dir=to_path(data_dir, "data_dir"))
    chosen = images if n is None else images.first(n)
    return to_float(chosen.pixels), chosen.labels


def measure_channels(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of (N, C, H, W) uint8, as fractions of 255.

    A constant channel has a standard deviation of 1, so that it can be divided by.
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


def _check_same_shape(source: Source, train: Images, part: str, images: Images) -> None:
    expected, found = (tuple(i.pixels.shape[1:]) for i in (train, images))
    if expected != found:
        raise DataError(
            f"{source.summary} has {part} images of shape {found} (channels, height, width) but "
            f"training images of shape {expected}: the shapes must be equal."
        )
