"""Where the data of a study lie, and data sets cut from larger ones."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrbench.data import load_dataset, load_split
from adrbench.errors import DataError
from adrbench.runtime.files import write_atomically
from benchmarks.reproduce.matrix import CUTS, JPEG, Cut

PARTS = ("training", "validation", "test")


def place(dataset: str, data_dir: Path) -> str:
    """Return what `adrbench train` takes for `dataset`: its name, or a path in `data_dir`."""
    if dataset in CUTS:
        return str(data_dir / f"{dataset}.npz")
    return str(data_dir / dataset) if dataset == JPEG else dataset


def provide(datasets: Iterable[str], data_dir: Path) -> None:
    """Cut what is not in `data_dir` yet from its source, which is downloaded where it is not there.

    Raises:
        DataError: when a source cannot be had, or images are not those of the published tables.

    """
    for dataset in datasets:
        path = Path(place(dataset, data_dir))
        if dataset == JPEG and not path.is_dir():
            raise DataError(
                f"{path} is not there: unpack the JPEG files of CIFAR-10, train/CLASS/*.jpg and "
                "test/CLASS/*.jpg, into it."
            )
        if dataset in CUTS:
            if not path.exists():
                write_cut(CUTS[dataset], path, data_dir)
            check_cut(CUTS[dataset], path)


def write_cut(cut: Cut, path: Path, data_dir: Path) -> None:
    """Write the images of `cut` as an .npz file that `adrbench train` takes."""
    train, _ = load_split(cut.source, "train", data_dir=data_dir)
    test, _ = load_split(cut.source, "test", data_dir=data_dir)
    arrays: dict[str, Any] = {}
    for part, images, ranges in (
        ("train", train, cut.train),
        ("val", train, cut.val),
        ("test", test, cut.test),
    ):
        chosen = images.take(torch.cat([torch.arange(*one) for one in ranges]))
        arrays[f"x_{part}"] = chosen.pixels.permute(0, 2, 3, 1).numpy()
        arrays[f"y_{part}"] = chosen.labels.numpy()
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(path, stream.getvalue())


def check_cut(cut: Cut, path: Path) -> None:
    """Raise DataError unless the images at `path` are those of the published tables."""
    dataset = load_dataset(str(path), data_dir=path.parent)
    parts = (dataset.train, dataset.val, dataset.test)
    for name, images, expected in zip(PARTS, parts, cut.sha256, strict=True):
        found = images.sha256()
        if found != expected:
            raise DataError(
                f"the {name} images in {path} are others than those of the published tables "
                f"(sha256 {found[:12]}, not {expected[:12]}): move it away, to cut it again."
            )
