"""Finding the source of a data set by its name or path."""

import os
import re
from pathlib import Path

from adrbench.data.builtin import DATASETS
from adrbench.data.folder import open_folder
from adrbench.data.images import Source
from adrbench.data.npz import open_npz
from adrbench.errors import UsageError, unknown_name


def dataset_name(dataset: str) -> str:
    """Return the short name of `dataset` for file names, without reading the data.

    This is the name of a built-in data set, or the last component of a path without `.npz`, where
    characters other than letters, digits, dots, dashes and underscores are replaced by dashes;
    "-npz" or "-folder" is appended to the name of a built-in data set. Raises UsageError for an
    unknown name.
    """
    if dataset in DATASETS:
        return dataset
    path = _parse_path(dataset)
    is_npz = path.suffix.lower() == ".npz" and not os.path.isdir(path)
    stem = path.stem if is_npz else os.path.basename(os.path.realpath(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "data"
    if name.lower() in DATASETS:
        return f"{name}-npz" if is_npz else f"{name}-folder"
    return name


def find_source(dataset: str) -> Source:
    """Return the source of `dataset`: a built-in name, an `.npz` file or an image folder.

    Raises UsageError for an unknown name, DataError for a path that cannot be used.
    """
    name = dataset_name(dataset)
    if dataset in DATASETS:
        return DATASETS[dataset]
    path = _parse_path(dataset)
    return open_folder(path, name) if os.path.isdir(path) else open_npz(path, name)


def _parse_path(dataset: str) -> Path:
    """Return `dataset` as a path; raise UsageError if it neither looks like one nor exists."""
    try:
        path = Path(dataset).expanduser()
        os.path.realpath(path)
    except (RuntimeError, ValueError) as error:  # an unknown "~user", or invalid characters
        raise UsageError(
            f"dataset {dataset!r} is not a path ({error}): give an .npz file or an image folder."
        ) from error
    looks_like_path = path.suffix.lower() == ".npz" or "/" in dataset or "\\" in dataset
    if not dataset or not (looks_like_path or os.path.exists(path)):
        raise unknown_name("dataset", dataset, [*DATASETS, "an .npz file or an image folder"])
    return path
