"""Images and labels given to `adrbench.evaluate`, checked before anything is computed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.data import Images, to_float
from adrbench.data.array_checks import (
    as_labels,
    as_tensor,
    check_channels_first,
    check_counts,
    type_name,
)
from adrbench.errors import DataError


def as_images(x: Tensor | npt.NDArray[np.floating], y: Tensor | npt.NDArray[np.integer]) -> Images:
    """Return images `x` (N, C, H, W) in [0, 1] with labels `y` (N,), on the CPU.

    They are kept as uint8 where every pixel is a multiple of 1/255, else as float32, so that images
    from a file are the same data whether they are read by the caller or by this package.

    Raises:
        DataError: for images of another type, shape or range, or labels that are no class indices.

    """
    pixels, labels = _as_pixels(x), as_labels(y, "y")
    check_counts(len(pixels), len(labels), "x", "y")
    levels = (pixels * 255).round().to(torch.uint8)
    is_exact = torch.equal(to_float(levels), pixels)
    return Images(levels if is_exact else pixels.clone(), labels.clone())


def check_labels_within(labels: Tensor, num_classes: int, name: str) -> None:
    """Raise DataError for a label that is none of the `num_classes` classes of a model."""
    highest = int(labels.max())
    if highest >= num_classes:
        raise DataError(
            f"y has the label {highest}, but {name} has {num_classes} classes, 0 to "
            f"{num_classes - 1}: give the labels that the model was trained with."
        )


def _as_pixels(x: object) -> Tensor:
    """Return images as (N, C, H, W) float32 in [0, 1]; DataError otherwise."""
    pixels = as_tensor(x, "x")
    check_channels_first(tuple(pixels.shape), "x")
    if not pixels.is_floating_point():
        raise DataError(
            f"x has type {type_name(pixels)}: give floating-point images in [0, 1], such as "
            "x / 255."
        )
    pixels = pixels.to(torch.float32)
    if not pixels.isfinite().all():
        raise DataError(
            "x contains values that are not finite (NaN or infinity): give pixels in [0, 1]."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        is_scaled = low >= 0 and 2 < high <= 255
        how = ", such as x / 255" if is_scaled else ", and put a normalization inside the model"
        raise DataError(f"x ranges from {low:.4g} to {high:.4g}: give pixels in [0, 1]{how}.")
    return pixels
