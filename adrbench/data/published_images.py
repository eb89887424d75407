"""Published images, recognized by their content in any file.

The SHA-1 sums are those of the files in CIFAR-10's binary version, `cifar-10-binary.tar.gz`, by
which MXNet's loader (`gluon.data.vision.CIFAR10`) checks them. In such a file, each image is one
byte for its label, then its red, its green and its blue values, row by row.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from adrbench.data.images import Images
from adrbench.runtime.hashing import tensor_bytes

#: By how much a float32 pixel may differ from a multiple of 1/255 by rounding.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class BinaryFiles:
    """The files of a published data set: their SHA-1 sums, in the order of their images.

    Each holds `images_per_file` images of `shape`, (channels, height, width).
    """

    shape: tuple[int, int, int]
    images_per_file: int
    train: tuple[str, ...]
    test: tuple[str, ...]


PUBLISHED: dict[str, BinaryFiles] = {
    "cifar10": BinaryFiles(
        shape=(3, 32, 32),
        images_per_file=10_000,
        train=(
            "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
            "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
            "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
            "aab85764eb3584312d3c7f65fd2fd016e36a258e",
            "26e2849e66a845b7f1e4614ae70f4889ae604628",
        ),
        test=("67eb016db431130d61cd03c7ad570b013799c88c",),
    )
}


def published_name(images: Images) -> str | None:
    """Return the data set whose published test set `images` are, in official order; else None.

    Their pixels may be uint8, or float32 in [0, 1].
    """
    return next(
        (name for name, files in PUBLISHED.items() if _are_those_in(images, files, files.test)),
        None,
    )


def are_published_training_images(images: Images, name: str) -> bool:
    """Return whether `images` are all training images of the data set `name`, in official order."""
    files = PUBLISHED[name]
    return _are_those_in(images, files, files.train)


def binary_sha1(images: Images) -> str:
    """Return the SHA-1 of `images`, with uint8 pixels and labels below 256, as such a file."""
    labels = images.labels.to(torch.uint8).unsqueeze(1)
    content = tensor_bytes(torch.cat([labels, images.pixels.flatten(1)], dim=1))
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _are_those_in(images: Images, files: BinaryFiles, sums: tuple[str, ...]) -> bool:
    """Return whether `images` are those of the files with these SHA-1 sums, in order."""
    size = files.images_per_file
    if tuple(images.pixels.shape) != (size * len(sums), *files.shape):
        return False
    if images.labels.min() < 0 or images.labels.max() > 255:
        return False
    levels = _to_levels(images.pixels)
    if levels is None:
        return False
    parts = [slice(i * size, (i + 1) * size) for i in range(len(sums))]
    return all(
        binary_sha1(Images(levels[part], images.labels[part])) == sha1
        for part, sha1 in zip(parts, sums, strict=True)
    )


def _to_levels(pixels: Tensor) -> Tensor | None:
    """Return pixels in [0, 1] as uint8 levels; None unless all of them are multiples of 1/255."""
    if pixels.dtype == torch.uint8:
        return pixels
    levels = (pixels * 255).round()
    is_exact = (levels / 255 - pixels).abs().max() <= ROUNDING  # False where one is NaN
    if not is_exact or levels.min() < 0 or levels.max() > 255:
        return None
    return levels.to(torch.uint8)
