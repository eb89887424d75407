"""Image files to one uint8 tensor, decoded by Pillow, if memory can hold it."""

import math
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adrbench.errors import DataError

#: These are programs, which Pillow would have Ghostscript run.
PROGRAMS = ("EPS",)


def decode_images(files: Sequence[Path]) -> Tensor:
    """Return the images in `files`, in that order, as (N, 3, H, W) uint8; grey becomes RGB.

    Raises DataError, naming the first such file, for one that cannot be read, whose samples have
    more than 8 bits, or whose size is not that of the first, and for images that would not fit
    into memory; `files` must not be empty.
    """
    with warnings.catch_warnings():
        # Of a transparency that RGB lacks, for one, once per image.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first = _decode(files[0])
        height, width, _ = first.shape
        check_memory(first.size * len(files), f"{len(files)} images as large as {files[0]}")
        pixels = np.empty((len(files), 3, height, width), np.uint8)
        # In one thread: images this small decode faster than threads pass the interpreter lock.
        for i, file in enumerate(files):
            image = _decode(file)
            if image.shape != first.shape:
                raise DataError(
                    f"{file} is {image.shape[1]}x{image.shape[0]} pixels but {files[0]} is "
                    f"{width}x{height}: all images must have one size."
                )
            pixels[i] = image.transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def check_memory(num_bytes: int, what: str) -> None:
    """Raise DataError unless `what`, of so many bytes, can be held in memory.

    The system would promise more than it has, and end the process when the promise falls due.
    """
    try:
        if num_bytes > machine_memory():
            raise MemoryError
        np.empty(num_bytes, np.uint8)
    except (MemoryError, ValueError) as error:
        raise DataError(
            f"{what} would take {num_bytes / 2**30:.1f} GiB, which memory cannot hold: give fewer "
            "or smaller images."
        ) from error


def machine_memory() -> float:
    """Return how many bytes of memory this machine has; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


def readable_suffixes() -> frozenset[str]:
    """Return the file name endings, lower case and with a dot, of the formats Pillow reads."""
    formats = Image.registered_extensions()
    readable = Image.OPEN.keys() - PROGRAMS
    return frozenset(suffix for suffix, name in formats.items() if name in readable)


def _decode(file: Path) -> npt.NDArray[np.uint8]:
    """Return one image as (H, W, 3)."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for its writer
            raise OSError("it is not a file")
        with Image.open(file) as image:
            mode = image.mode
            if image.format in PROGRAMS:
                raise OSError(f"it is {image.format}")
            if not mode.startswith(("I", "F")):
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders have no common base for what they raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"cannot read the image {file} ({reason}): replace or remove it."
        ) from error
    raise DataError(f"{file} has {mode} samples: images must have 8 bits per channel.")
