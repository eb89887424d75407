"""Image files decoded by Pillow into one uint8 tensor, if it fits into memory."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adrbench.data.memory import check_memory
from adrbench.errors import DataError, one_line
from adrbench.runtime.files import open_limited

#: Formats that are programs, which Pillow would run in Ghostscript.
PROGRAM_FORMATS = ("EPS",)
#: Larger files are not read: Pillow refuses images whose pixels take a quarter of this.
MAX_FILE_BYTES = 2**30


def decode_images(files: Sequence[Path]) -> Tensor:
    """Return the images in `files`, in that order, as (N, 3, H, W) uint8; gray becomes RGB.

    `files` must not be empty. Raises DataError, naming the first such file, for one that cannot be
    read, has more than 8 bits per channel or differs in size from the first, and for images that
    do not fit into memory.
    """
    with warnings.catch_warnings():
        # Pillow warns once per image, for example about transparency that is lost in RGB.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        first = _decode(files[0])
        height, width, _ = first.shape
        check_memory(first.size * len(files), f"{len(files)} images as large as {files[0]}")
        pixels = np.empty((len(files), 3, height, width), np.uint8)
        # In one thread: for images this small, contention for the interpreter lock costs more.
        for i, file in enumerate(files):
            image = _decode(file)
            if image.shape != first.shape:
                raise DataError(
                    f"{file} is {image.shape[1]}x{image.shape[0]} pixels but {files[0]} is "
                    f"{width}x{height}: all images must have the same size."
                )
            pixels[i] = image.transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def readable_suffixes() -> frozenset[str]:
    """Return the file name suffixes, in lower case with a dot, of the formats Pillow reads."""
    formats = Image.registered_extensions()
    readable = Image.OPEN.keys() - PROGRAM_FORMATS
    return frozenset(suffix for suffix, name in formats.items() if name in readable)


def _decode(file: Path) -> npt.NDArray[np.uint8]:
    """Return one image as (H, W, 3) uint8."""
    try:
        with open_limited(file, MAX_FILE_BYTES) as stream, Image.open(stream) as image:
            mode = image.mode
            if image.format in PROGRAM_FORMATS:
                raise OSError(f"it is {image.format}")
            if not mode.startswith(("I", "F")):
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders have no common base for what they raise
        raise DataError(
            f"cannot read the image {file} ({one_line(error)}): replace or remove it."
        ) from error
    raise DataError(f"{file} has {mode} samples: images must have 8 bits per channel.")
