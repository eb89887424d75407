"""Image files to one uint8 tensor, decoded by Pillow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from adrbench.errors import DataError

_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def decode_images(files: Sequence[Path]) -> Tensor:
    """Return the images in `files`, in that order, as (N, 3, H, W) uint8; grey becomes RGB.

    Raises DataError, naming the first such file, for one that cannot be read, whose samples have
    more than 8 bits, or whose size is not that of the first; `files` must not be empty.
    """
    first = _decode(files[0])
    height, width, _ = first.shape
    pixels = np.empty((len(files), 3, height, width), np.uint8)
    # In one thread: on images this small, threads spend longer passing the interpreter lock around.
    for i, file in enumerate(files):
        image = _decode(file)
        if image.shape != first.shape:
            raise DataError(
                f"{file} is {image.shape[1]}x{image.shape[0]} pixels but {files[0]} is "
                f"{width}x{height}: all images must have one size."
            )
        pixels[i] = image.transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def readable_suffixes() -> frozenset[str]:
    """Return the file name endings, lower case and with a dot, of the formats Pillow reads."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN)


def _decode(file: Path) -> npt.NDArray[np.uint8]:
    """Return one image as (H, W, 3)."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{file} has {image.mode} samples: images must have 8 bits per channel."
                )
            return np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except _BROKEN_IMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"cannot read the image {file} ({reason}): replace or remove it."
        ) from error
