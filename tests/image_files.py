"""Image files for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_image(
    file: Path, level: int | tuple[int, int, int], side: int = 4, **kwargs: Any
) -> None:
    """Write a square image of one color or gray level."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(level, int) else "RGB"
    Image.new(mode, (side, side), level).save(file, **kwargs)


def image_bytes(form: str, mode: str = "RGB", side: int = 8, **options: Any) -> bytes:
    """Return an image of random pixels in the file format `form`."""
    levels = np.random.default_rng(1).integers(0, 256, (side, side, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels, "RGBA").convert(mode).save(stream, form, **options)
    return stream.getvalue()
