"""The data sets of the studies: where they are, and how subsets of larger ones are made."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrbench.data import load_dataset, load_split
from adrbench.errors import DataError
from adrbench.runtime.files import write_atomically
from benchmarks.reproduce.matrix import JPEG, SUBSETS, Subset

PARTS = ("training", "validation", "test")


def find_dataset(dataset: str, data_dir: Path) -> str:
    """Return the argument of `adrbench train` for `dataset`: its name, or a path in `data_dir`."""
    if dataset in SUBSETS:
        return str(data_dir / f"{dataset}.npz")
    return str(data_dir / dataset) if dataset == JPEG else dataset


def prepare_datasets(datasets: Iterable[str], data_dir: Path) -> None:
    """Make the subsets that are not in `data_dir` yet, downloading their sources if needed.

    Raises:
        DataError: when a source is missing, or images are not those of the published tables.

    """
    for dataset in datasets:
        path = Path(find_dataset(dataset, data_dir))
        if dataset == JPEG and not path.is_dir():
            raise DataError(
                f"{path} does not exist: unpack the JPEG files of CIFAR-10, train/CLASS/*.jpg and "
                "test/CLASS/*.jpg, into it."
            )
        if dataset in SUBSETS:
            if not path.exists():
                write_subset(SUBSETS[dataset], path, data_dir)
            check_subset(SUBSETS[dataset], path)


def write_subset(subset: Subset, path: Path, data_dir: Path) -> None:
    """Write the images of `subset` as an .npz file that `adrbench train` takes."""
    train, info = load_split(subset.source, "train", data_dir=data_dir)
    test, _ = load_split(subset.source, "test", data_dir=data_dir)
    arrays: dict[str, Any] = {"class_names": np.array(info.class_names)}
    for part, images, ranges in (
        ("train", train, subset.train),
        ("val", train, subset.val),
        ("test", test, subset.test),
    ):
        chosen = images.take(torch.cat([torch.arange(*one) for one in ranges]))
        arrays[f"x_{part}"] = chosen.pixels.permute(0, 2, 3, 1).numpy()
        arrays[f"y_{part}"] = chosen.labels.numpy()
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(path, stream.getvalue())


def check_subset(subset: Subset, path: Path) -> None:
    """Raise DataError unless the images at `path` are those of the published tables."""
    dataset = load_dataset(str(path), data_dir=path.parent)
    parts = (dataset.train, dataset.val, dataset.test)
    for name, images, expected in zip(PARTS, parts, subset.sha256, strict=True):
        found = images.sha256()
        if found != expected:
            raise DataError(
                f"the {name} images in {path} are not those of the published tables "
                f"(sha256 {found[:12]}, not {expected[:12]}): delete it, and it is made again."
            )
