"""The table of built-in data sets, and the readers of digits and CIFAR."""

import hashlib
import http.client
import io
import pickle
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrbench.data.array_checks import check_class_names
from adrbench.data.images import Images, Part, Source
from adrbench.data.tiny_imagenet import NUM_CLASSES as NUM_TINY_IMAGENET_CLASSES
from adrbench.data.tiny_imagenet import read_tiny_imagenet, read_tiny_imagenet_names
from adrbench.errors import DataError, one_line
from adrbench.runtime.files import UnreadableFileError, open_limited, read_limited

NUM_DIGITS_TEST = 360
DOWNLOAD_TIMEOUT_SECONDS = 30.0
#: The official `meta` of CIFAR-100 has 1,557 bytes.
MAX_META_BYTES = 2**16
#: The longest official file of CIFAR, its archive, has 170 MB.
MAX_CIFAR_BYTES = 2**28
CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def read_digits(data_dir: Path, part: Part) -> Images | None:
    """Return a part of scikit-learn's 8x8 digits: the last 360 for testing, the rest for training.

    The images are included in scikit-learn; `data_dir` is unused. Their 17 gray levels are scaled
    to 0 to 255.
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
    """Return a part of torchvision's CIFAR10 or CIFAR100, downloading it if it is missing.

    Files are checked against their published MD5 sums. Raises DataError, naming the file and its
    location, if they are missing and cannot be downloaded.
    """
    if part == "val":
        return None
    from torchvision import datasets

    dataset_class: Any = getattr(datasets, class_name)
    _check_files(dataset_class, data_dir)
    existed = data_dir.exists()
    try:
        with redirect_stdout(sys.stderr), _connection_timeout():
            dataset: Any = dataset_class(data_dir, train=part == "train", download=True)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        if not existed and data_dir.is_dir() and not any(data_dir.iterdir()):
            data_dir.rmdir()
        reason = one_line(getattr(error, "reason", error))
        raise DataError(
            f"{class_name} is not in {data_dir} and cannot be downloaded ({reason}): put "
            f"{dataset_class.filename} from {dataset_class.url} there yourself, or the folder "
            f"{dataset_class.base_folder} that it contains."
        ) from error
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(dataset.targets, dtype=torch.int64))


def _check_files(dataset_class: Any, data_dir: Path) -> None:
    """Raise DataError for a pipe, a device or a huge file, which torchvision would read."""
    folder = data_dir / dataset_class.base_folder
    names = [name for name, _ in (*dataset_class.train_list, *dataset_class.test_list)]
    parts = [folder / name for name in (*names, dataset_class.meta["filename"])]
    for path in (data_dir / dataset_class.filename, *parts):
        try:
            open_limited(path, MAX_CIFAR_BYTES).close()
        except UnreadableFileError as error:
            raise DataError(f"cannot read {path} ({error}): replace or remove it.") from error
        except OSError:  # it is missing, or torchvision says what is wrong
            continue


class _PlainUnpickler(pickle.Unpickler):
    """Reads only lists, dictionaries, texts and numbers: no class or function is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def read_cifar100_names(data_dir: Path) -> tuple[str, ...]:
    """Return the names of CIFAR-100's fine classes in its own `meta`; () where it is not usable.

    A pickle can take any time and memory, so only the official one is read.
    """
    from torchvision.datasets import CIFAR100

    try:
        meta = read_limited(data_dir / "cifar-100-python" / "meta", MAX_META_BYTES)
        if hashlib.md5(meta, usedforsecurity=False).hexdigest() != CIFAR100.meta["md5"]:
            return ()
        names = _PlainUnpickler(io.BytesIO(meta)).load()["fine_label_names"]
        return check_class_names(names, 100, "CIFAR-100")
    except Exception:  # a damaged pickle may raise anything, and nothing depends on the names
        return ()


@contextmanager
def _connection_timeout() -> Iterator[None]:
    """Set a timeout for connections: torchvision passes none."""
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
            summary="8x8 gray digits, 1,437 for training, 360 for testing; part of scikit-learn",
            num_classes=10,
            mean=(0.3054,),
            std=(0.3753,),
            num_test=NUM_DIGITS_TEST,
            read=read_digits,
            class_names=tuple("0123456789"),
        ),
        Source(
            name="cifar10",
            summary="32x32 color photographs in 10 classes, 50,000 and 10,000; downloaded",
            num_classes=10,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2471, 0.2435, 0.2616),
            published=True,
            num_test=10_000,
            read=partial(read_cifar, "CIFAR10"),
            class_names=CIFAR10_NAMES,
        ),
        Source(
            name="cifar100",
            summary="32x32 color photographs in 100 classes, 50,000 and 10,000; downloaded",
            num_classes=100,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            published=True,
            num_test=10_000,
            read=partial(read_cifar, "CIFAR100"),
            read_class_names=read_cifar100_names,
        ),
        Source(
            name="tiny-imagenet",
            summary="64x64 color photographs in 200 classes, 100,000 and 10,000; manual download",
            num_classes=NUM_TINY_IMAGENET_CLASSES,
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2302, 0.2265, 0.2262),
            published=True,
            num_test=10_000,
            read=read_tiny_imagenet,
            read_class_names=read_tiny_imagenet_names,
        ),
    )
}
