"""Labeled images as tensors, and data sets with training, validation and test splits.

A `Source` reads a data set, built in or the user's own; a `Dataset` is one in memory.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from adrbench.errors import DataError, UsageError
from adrbench.runtime.hashing import tensor_bytes

if TYPE_CHECKING:
    from adrbench.data.arrays import Array

Part = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Images:
    """Labeled images: `pixels` (N, C, H, W) and `labels` (N,) int64, on one device.

    Pixels are uint8, or float32 in [0, 1] where images are not multiples of 1/255; float32 images
    can be used for evaluation but not for training.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.pixels.dtype in (torch.uint8, torch.float32), self.pixels.dtype
        assert self.labels.dtype == torch.int64, self.labels.dtype
        assert self.pixels.dim() == 4, self.pixels.shape
        assert self.labels.shape == self.pixels.shape[:1], (self.labels.shape, self.pixels.shape)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        """Return the same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def first(self, n: int) -> "Images":
        """Return the first `n` images; UsageError unless n is an integer, 1 <= n <= len(self)."""
        if not isinstance(n, Integral) or not 1 <= n <= len(self):
            raise UsageError(
                f"n is {n!r}, but it must be an integer from 1 to {len(self)}, the number of "
                "images."
            )
        return Images(self.pixels[:n], self.labels[:n])

    def take(self, indices: Tensor) -> "Images":
        """Return the images at `indices`, a (K,) int64 tensor on any device, in that order."""
        indices = indices.to(self.labels.device)
        return Images(self.pixels[indices], self.labels[indices])

    def sha256(self) -> str:
        """Return the SHA-256 of the shape, the pixels and the labels, in hexadecimal."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(tensor_bytes(self.pixels))
        digest.update(tensor_bytes(self.labels))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that can be read.

    `read(data_dir, part)` returns a split in official order; "val" is None unless the data set has
    its own validation split. `mean` and `std` are per channel, for pixels in [0, 1]; they are None
    for a user's own data, where they are computed from the training images. `published` means that
    the test split is a benchmark's official one, and `num_test` is then its size. Without
    `classes_are_known`, `num_classes` is only a lower bound derived from the labels of a test
    split. `class_names` are those of all classes, in order, and may be any text; they are empty
    where unknown, or where `read_class_names(data_dir)` returns them.
    """

    name: str
    summary: str
    num_classes: int
    classes_are_known: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    published: bool = False
    num_test: int | None = None
    read: Callable[[Path, Part], Images | None]
    class_names: tuple[str, ...] = ()
    read_class_names: Callable[[Path], tuple[str, ...]] | None = None

    def with_class_names(self, data_dir: Path) -> "Source":
        """Return the source with its class names, where the files of the data set have them."""
        if self.read_class_names is None:
            return self
        names = self.read_class_names(data_dir)
        return replace(self, class_names=names if len(names) == self.num_classes else ())

    def read_part(self, data_dir: Path, part: Literal["train", "test"]) -> Images:
        """Return one split; DataError if it is missing, broken or incomplete."""
        images = self.read(data_dir, part)
        if images is None or len(images) == 0:
            raise DataError(f"{self.name} has no {part} images: it needs at least one.")
        if part == "test" and self.num_test not in (None, len(images)):
            raise DataError(
                f"the test split of {self.name} in {data_dir} has {len(images)} images instead of "
                f"{self.num_test}: unpack the complete data set."
            )
        return images


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in memory; `mean` and `std` are per channel, for pixels in [0, 1].

    `val` may be empty; `val_is_drawn` means that it was drawn from the training images with a seed.
    `published` means that `test` is a benchmark's official test set. `training_images_sha256`
    identifies all training images, before any were held out, and the data set's own validation
    images; it is None if unknown. `class_names` are those of all classes, or empty where unknown.

    `Dataset.from_arrays` creates one from a user's arrays.
    """

    name: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    published: bool
    train: Images
    val: Images
    test: Images
    training_images_sha256: str | None = None
    val_is_drawn: bool = False
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        *,
        name: str,
        x_test: "Array",
        y_test: "Array",
        x_train: "Array | None" = None,
        y_train: "Array | None" = None,
        x_val: "Array | None" = None,
        y_val: "Array | None" = None,
        num_classes: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "Dataset":
        """Create a data set from arrays.

        Images are (N, channels, height, width) uint8 and labels are (N,) integers from 0, both as
        torch tensors or NumPy arrays. For attacks, a test split and `num_classes` are enough.
        Without a validation split, some of the training images are held out for validation. `name`
        is used in the names of runs and records. `num_classes` is by default the highest training
        label plus 1; `mean` and `std`, per channel and for pixels in [0, 1], are by default those
        of the training images. `class_names` are one text per class, which reports show.

        Raises:
            DataError: for images or labels of another type, shape or range.
            UsageError: for another invalid argument, or a missing test split.

        Example:
            >>> import torch
            >>> from adrbench import Dataset
            >>> x, y = torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20) % 10
            >>> dataset = Dataset.from_arrays(
            ...     name="dark", x_train=x, y_train=y, x_test=x, y_test=y
            ... )
            >>> dataset.num_classes, dataset.mean
            (10, (0.0, 0.0, 0.0))

        """
        from adrbench.data.arrays import make_dataset

        return make_dataset(
            name,
            train=(x_train, y_train),
            val=(x_val, y_val),
            test=(x_test, y_test),
            num_classes=num_classes,
            mean=mean,
            std=std,
            class_names=class_names,
        )

    @property
    def channels(self) -> int:
        """The number of color channels."""
        return self.train.pixels.shape[1]


def to_float(pixels: Tensor) -> Tensor:
    """Return `pixels` of any shape, uint8 or already float32 in [0, 1], as new float32 in [0, 1].

    A model or an attack may write into what it gets, so that the pixels themselves are never given
    to one.
    """
    return pixels.clone() if pixels.is_floating_point() else pixels.to(torch.float32).div_(255)


def check_num_classes(num_classes: int, where: str) -> int:
    """Return `num_classes`; raise DataError, which names `where`, if it is below two."""
    if num_classes < 2:
        found = "only one class" if num_classes == 1 else f"{num_classes} classes"
        raise DataError(f"{where} has {found}: a classifier needs at least two.")
    return num_classes
