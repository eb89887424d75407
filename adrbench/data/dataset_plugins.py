"""Data sets created by third-party code: installed plugins, and callables at import paths."""

from functools import cache, partial
from pathlib import Path

from adrbench.data.images import Dataset, Images, Part, Source
from adrbench.errors import AdrbenchError, UsageError
from adrbench.registry import (
    ImportPathError,
    describe_exception,
    find_plugin,
    is_import_path,
    load_import_path,
)


def is_foreign(dataset: str) -> bool:
    """Return whether `dataset` is the name of a plugin or an import path; nothing is imported."""
    return is_import_path(dataset) or find_plugin("datasets", dataset) is not None


def source_of(dataset: Dataset, name: str) -> Source:
    """Return the source that reads the splits of a data set in memory, under a name."""
    return Source(
        name=name,
        summary=f"data set {name}",
        num_classes=dataset.num_classes,
        mean=dataset.mean or None,
        std=dataset.std or None,
        published=dataset.published,
        read=partial(_read_part, dataset),
    )


@cache
def build_dataset(dataset: str, data_dir: Path) -> Dataset:
    """Return the data set of a plugin or an import path, which is called once with `data_dir`.

    Raises:
        UsageError: for an object that is not a callable or does not return a data set.
        ImportPathError: when it cannot be imported, or raises.

    """
    plugin = find_plugin("datasets", dataset)
    builder = plugin.load() if plugin else load_import_path(dataset)
    if not callable(builder):
        raise UsageError(
            f"data set {dataset} is a {type(builder).__name__}: it must be a callable (data_dir) "
            "that returns an adrbench.Dataset."
        )
    try:
        built = builder(data_dir)
    except AdrbenchError:
        raise
    except Exception as error:  # code from elsewhere may raise anything
        raise ImportPathError(
            f"data set {dataset} raised {describe_exception(error)} when it was built."
        ) from error
    if not isinstance(built, Dataset):
        raise UsageError(
            f"data set {dataset} returned a {type(built).__name__}: it must return an "
            "adrbench.Dataset."
        )
    return built


def _read_part(dataset: Dataset, _data_dir: Path, part: Part) -> Images | None:
    images: Images = getattr(dataset, part)
    return images if len(images) else None
