"""A user's own images in a folder with one subfolder per class."""

import os
from functools import partial
from pathlib import Path

import torch

from adrbench.data.array_checks import check_class_names
from adrbench.data.decode import decode_images, readable_suffixes
from adrbench.data.images import Images, Part, Source, check_num_classes
from adrbench.errors import DataError


def open_folder(path: Path, name: str) -> Source:
    """Return the source that reads the image folder at `path`; no image is opened yet.

    Images are read from anywhere below `train/<class>/` and `test/<class>/`. `val/` is the
    validation split, or the test split if there is no `test/`. For attacks, a test split is enough.
    Class indices follow the sorted names in `train/`, or else in the test split. Images are
    converted to RGB. Their order cycles through the classes (the first file of each class by name,
    then the second of each, and so on), so that the first n images are balanced. The names of the
    folders are those of the classes. Raises DataError
    for missing or empty splits; reading a split raises it for its files.
    """
    test = path / ("test" if (path / "test").is_dir() else "val")
    has_train = (path / "train").is_dir() or not test.is_dir()
    classes_from = path / "train" if has_train else test
    classes = _list_classes(classes_from)
    if not test.is_dir():
        raise DataError(f"{path} has neither test/ nor val/: put the test images into test/.")
    num_classes = check_num_classes(len(classes), str(classes_from))
    return Source(
        name=name,
        summary=str(path),
        num_classes=num_classes,
        read=partial(_read_folder_part, path, test, classes),
        class_names=check_class_names(classes, num_classes, str(path)),
    )


def _read_folder_part(
    path: Path, test: Path, classes: list[str], _data_dir: Path, part: Part
) -> Images | None:
    folder = test if part == "test" else path / part
    if part == "val" and (folder == test or not folder.is_dir()):
        return None
    if part == "train" and not folder.is_dir():
        raise DataError(
            f"{path} has no training images, only {test.name}/: it can be used for attacks, but "
            "training needs train/ too."
        )
    unknown = sorted(set(_list_classes(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder} has the class {unknown[0]!r}, which {path / 'train'} lacks.")
    examples = []
    for label, name in enumerate(classes):
        files = _list_images(folder / name)
        if not files and part == "train":
            raise DataError(f"{folder / name} has no images: add some or remove the folder.")
        examples += [(rank, label, file) for rank, file in enumerate(files)]
    if not examples:
        raise DataError(f"{folder} has no images: put them into {folder}/<class>/.")
    examples.sort()
    labels = torch.tensor([label for _, label, _ in examples], dtype=torch.int64)
    return Images(decode_images([file for _, _, file in examples]), labels)


def _list_classes(folder: Path) -> list[str]:
    try:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: an image folder needs train/ and test/.")
        inside = [file.name for file in folder.iterdir() if file.is_dir()]
    except OSError as error:
        raise DataError(f"cannot list {folder} ({error.strerror}): make it readable.") from error
    names = sorted(name for name in inside if not name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no class folders: put the images into {folder}/<class>/.")
    return names


def _list_images(folder: Path) -> list[Path]:
    """Return the files below `folder` with a readable suffix, sorted; [] for a missing folder."""
    suffixes = readable_suffixes()
    files = []
    visited = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real_parent = os.path.realpath(parent)
        if real_parent in visited:  # through a symbolic link, possibly in a cycle
            folders.clear()
            continue
        visited.add(real_parent)
        folders.sort()
        files += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(files)
