"""The data sets everybody knows: one table, and how each is read from its official files."""

import http.client
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrbench.data.decode import decode_images
from adrbench.data.images import Images, Part, Source
from adrbench.errors import DataError

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_CLASSES = 200
NUM_DIGITS_TEST = 360
DOWNLOAD_TIMEOUT_SECONDS = 30.0


def read_digits(data_dir: Path, part: Part) -> Images | None:
    """Return scikit-learn's 8x8 digits: the last 360 are the test part, the others training.

    They come with scikit-learn; `data_dir` is not looked at. The 17 grey levels are spread over
    0 to 255.
    """
    from sklearn.datasets import load_digits

    if part == "val":
        return None
    digits = load_digits()
    pixels = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    split = len(labels) - NUM_DIGITS_TEST
    chosen = slice(split) if part == "train" else slice(split, None)
    return Images(pixels[chosen].clone(), labels[chosen].clone())


def read_cifar(class_name: str, data_dir: Path, part: Part) -> Images | None:
    """Return a part of torchvision's CIFAR10 or CIFAR100, downloading it where it is missing.

    Files are checked against their published MD5 sums. Raises DataError, saying which file to put
    where, if they are missing and cannot be downloaded.
    """
    if part == "val":
        return None
    from torchvision import datasets

    dataset_class: Any = getattr(datasets, class_name)
    was_there = data_dir.exists()
    try:
        with redirect_stdout(sys.stderr), _connection_timeout():
            read: Any = dataset_class(data_dir, train=part == "train", download=True)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        if not was_there and data_dir.is_dir() and not any(data_dir.iterdir()):
            data_dir.rmdir()
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise DataError(
            f"{class_name} is not in {data_dir} and cannot be downloaded ({reason}): put "
            f"{dataset_class.filename} from {dataset_class.url} there yourself, or the folder "
            f"{dataset_class.base_folder} that is inside it."
        ) from error
    pixels = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(read.targets, dtype=torch.int64))


def read_tiny_imagenet(data_dir: Path, part: Part) -> Images | None:
    """Return a part of TinyImageNet from `<data_dir>/tiny-imagenet-200`, its official layout.

    The official validation images, in the order of `val_annotations.txt`, are the test part: the
    labels of the official test images were never published. A class's number is its rank among
    the sorted names in `wnids.txt`. Raises DataError for whatever is missing or broken.
    """
    if part == "val":
        return None
    root = data_dir / "tiny-imagenet-200"
    if not root.is_dir():
        raise DataError(
            f"TinyImageNet is not in {data_dir} and has to be downloaded by hand: unpack "
            f"{TINY_IMAGENET_URL} there, so that {root / 'wnids.txt'} exists."
        )
    classes = {wnid: i for i, wnid in enumerate(sorted(_read_text(root / "wnids.txt").split()))}
    if len(classes) > TINY_IMAGENET_CLASSES:
        raise DataError(
            f"{root / 'wnids.txt'} lists {len(classes)} classes instead of "
            f"{TINY_IMAGENET_CLASSES}: unpack {TINY_IMAGENET_URL} again."
        )
    labelled = _tiny_train(root, classes) if part == "train" else _tiny_test(root, classes)
    if not labelled:
        raise DataError(f"{root} has no {part} images: unpack {TINY_IMAGENET_URL} again.")
    files, labels = zip(*labelled, strict=True)
    return Images(decode_images(files), torch.tensor(labels, dtype=torch.int64))


def _tiny_train(root: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    labelled = []
    for wnid, label in classes.items():
        try:
            files = sorted((root / "train" / wnid / "images").glob("*.JPEG"))
        except OSError:
            files = []
        if not files:
            raise DataError(
                f"{root / 'train' / wnid / 'images'} has no .JPEG files, but wnids.txt lists that "
                f"class: unpack {TINY_IMAGENET_URL} again."
            )
        labelled += [(file, label) for file in files]
    return labelled


def _tiny_test(root: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    annotations = root / "val" / "val_annotations.txt"
    labelled = []
    for number, line in enumerate(_read_text(annotations).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in classes:
            raise DataError(
                f"line {number} of {annotations} gives the class {wnid!r}, which is not in "
                f"wnids.txt: each line must be a file name, a tab and one of its classes."
            )
        labelled.append((root / "val" / "images" / name, classes[wnid]))
    return labelled


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: unpack {TINY_IMAGENET_URL} again.") from error


@contextmanager
def _connection_timeout() -> Iterator[None]:
    """Make a connection that hangs fail: torchvision passes no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="digits",
            summary="8x8 grey digits, 1,437 to train on and 360 to test; comes with scikit-learn",
            num_classes=10,
            mean=(0.3054,),
            std=(0.3753,),
            num_test=NUM_DIGITS_TEST,
            read=read_digits,
        ),
        Source(
            name="cifar10",
            summary="32x32 colour photographs in 10 classes, 50,000 and 10,000; downloaded",
            num_classes=10,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2471, 0.2435, 0.2616),
            published=True,
            num_test=10_000,
            read=partial(read_cifar, "CIFAR10"),
        ),
        Source(
            name="cifar100",
            summary="32x32 colour photographs in 100 classes, 50,000 and 10,000; downloaded",
            num_classes=100,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            published=True,
            num_test=10_000,
            read=partial(read_cifar, "CIFAR100"),
        ),
        Source(
            name="tiny-imagenet",
            summary="64x64 colour photographs in 200 classes, 100,000 and 10,000; by hand",
            num_classes=TINY_IMAGENET_CLASSES,
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2302, 0.2265, 0.2262),
            published=True,
            num_test=10_000,
            read=read_tiny_imagenet,
        ),
    )
}
