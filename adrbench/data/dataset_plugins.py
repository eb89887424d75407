"""Data sets created by third-party code: installed plugins, and callables at import paths."""

from functools import cache, partial
from pathlib import Path

from adrbench.data.images import Dataset, Images, Part, Source
from adrbench.errors import UsageError
from adrbench.registry import ImportPathError, calling_user_code, resolve


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
        class_names=dataset.class_names,
    )


@cache
def build_dataset(dataset: str, data_dir: Path) -> Dataset:
    """Return the data set of a plugin or an import path, which is called once with `data_dir`.

    Raises:
        UsageError: for an object that is not a callable or does not return a data set.
        ImportPathError: when it cannot be imported, or raises.

    """
    builder = resolve("datasets", dataset).value
    if not callable(builder):
        raise UsageError(
            f"data set {dataset} is a {type(builder).__name__}: it must be a callable (data_dir) "
            "that returns an adrbench.Dataset."
        )
    with calling_user_code(
        lambda raised: f"data set {dataset} {raised} when it was built.", ImportPathError
    ):
        built = builder(data_dir)
    if not isinstance(built, Dataset):
        raise UsageError(
            f"data set {dataset} returned a {type(built).__name__}: it must return an "
            "adrbench.Dataset."
        )
    return built


def _read_part(dataset: Dataset, _data_dir: Path, part: Part) -> Images | None:
    images: Images = getattr(dataset, part)
    return images if len(images) else None
