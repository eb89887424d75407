"""Finding the source of a data set by its name or path."""

import os
import re
from pathlib import Path

from adrbench.data.builtin import DATASETS
from adrbench.data.dataset_plugins import build_dataset, source_of
from adrbench.data.folder import open_folder
from adrbench.data.images import Dataset, Source
from adrbench.data.npz import open_npz
from adrbench.errors import UsageError, argument, one_line
from adrbench.printable import is_printable
from adrbench.registry import check_foreign, is_foreign, is_import_path

#: What an error offers beside the built-in names.
EXAMPLES = ("an .npz file", "an image folder", "package.module:attribute")


def dataset_name(dataset: str) -> str:
    """Return the short name of `dataset` for file names, without reading the data.

    This is the name of a built-in data set or of a plugin's, `package.module-attribute` for an
    import path, or the last component of a path without `.npz`, where characters other than
    letters, digits, dots, dashes and underscores are replaced by dashes; "-npz" or "-folder" is
    appended to the name of a built-in data set. Raises UsageError for an unknown name.
    """
    if dataset in DATASETS:
        return dataset
    if is_foreign("datasets", dataset):
        return dataset.replace(":", "-")
    path = _parse_path(dataset)
    is_npz = path.suffix.lower() == ".npz" and not os.path.isdir(path)
    stem = path.stem if is_npz else os.path.basename(os.path.realpath(path))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "data"
    if name.lower() in DATASETS:
        return f"{name}-npz" if is_npz else f"{name}-folder"
    return name


def stored_name(dataset: str) -> str:
    """Return what checkpoints and records hold of `dataset`: of a path, which is private, its name.

    Everything else, a name or an import path, is held as it is.
    """
    if dataset in DATASETS or is_foreign("datasets", dataset):
        return dataset
    try:
        return dataset_name(dataset)
    except UsageError:  # the name of a data set in memory, or a path that is not on this machine
        return dataset


def find_source(dataset: str | Dataset, data_dir: Path) -> Source:
    """Return the source of `dataset`.

    The data set may be in memory, a built-in name, a plugin's name, an import path, an `.npz` file
    or an image folder.

    Raises UsageError for an unknown name, DataError for a path that cannot be used, ImportPathError
    for user code that raises.
    """
    if isinstance(dataset, Dataset):
        return source_of(dataset, dataset.name)
    if not isinstance(dataset, str):
        raise UsageError(
            f"dataset is {one_line(repr(dataset))}: give a name, a path or an adrbench.Dataset."
        )
    name = dataset_name(dataset)
    if dataset in DATASETS:
        return DATASETS[dataset]
    if is_foreign("datasets", dataset):
        return source_of(build_dataset(dataset, data_dir), name)
    path = _parse_path(dataset)
    return open_folder(path, name) if os.path.isdir(path) else open_npz(path, name)


def explain_missing(dataset: str, *, is_known: bool = True) -> str | None:
    """Return why a data set that a file names cannot be used here, and what to do; None if it can.

    If it is not `is_known` where the data was, a name may be that of a file elsewhere, so no folder
    or plugin of that name is taken for it; a path, which early versions stored, is. Code at an
    import path is not imported because a file names it.
    """
    if dataset in DATASETS:
        return None
    if is_import_path(dataset):
        given = argument("dataset", one_line(dataset))
        return f"which is code that is imported only if you name it: give {given}."
    is_path = _looks_like_path(dataset)
    if not (is_known or is_path):
        return (
            "whose path is not in a config.json beside it: give the path of that data set, or the "
            f"name of its plugin, with {argument('dataset')}."
        )
    if is_foreign("datasets", dataset) or _exists(dataset):
        return None
    install = "" if is_path else ", or install the plugin of this name"
    return (
        "which does not exist here: give the path of that data set with "
        f"{argument('dataset')}{install}."
    )


def _exists(dataset: str) -> bool:
    """Return whether there is something at a path, which may be none, or of an unknown account."""
    try:
        return Path(dataset).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _parse_path(dataset: str) -> Path:
    """Return `dataset` as a path; raise UsageError if it neither looks like one nor exists."""
    try:
        path = Path(dataset).expanduser()
        os.path.realpath(path)
    except (RuntimeError, ValueError) as error:  # an unknown "~user", or invalid characters
        raise UsageError(
            f"dataset {dataset!r} is not a path ({error}): give an .npz file or an image folder."
        ) from error
    if not is_printable(os.path.abspath(path)):
        raise UsageError(
            f"dataset {dataset!r} has characters in its path that cannot be printed: rename it."
        )
    if not dataset or not (_looks_like_path(dataset) or os.path.exists(path)):
        check_foreign("datasets", dataset, [*DATASETS, *EXAMPLES])
    return path


def _looks_like_path(dataset: str) -> bool:
    return dataset.lower().endswith(".npz") or "/" in dataset or "\\" in dataset
