"""The images and labels that a caller hands over, checked before anything is computed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.data import Images, to_float
from adrbench.errors import DataError

#: The most channels that images have; a last axis of at most this many may be the channels.
MAX_CHANNELS = 4


def as_images(x: Tensor | npt.NDArray[np.floating], y: Tensor | npt.NDArray[np.integer]) -> Images:
    """Return images `x` (N, C, H, W) in [0, 1] with labels `y` (N,), on the CPU.

    They are kept as uint8 where every pixel is a multiple of 1/255, else as float32, so that images
    from a file are the same data whether they are read by the caller or by this package.

    Raises:
        DataError: for images of another type, shape or range, or labels that are no class indices.

    """
    pixels, labels = _as_tensor(x, "x"), _as_tensor(y, "y")
    _check_pixels(pixels)
    _check_labels(labels, len(pixels))
    pixels = pixels.to(torch.float32)
    levels = (pixels * 255).round().to(torch.uint8)
    is_exact = torch.equal(to_float(levels), pixels)
    return Images(
        (levels if is_exact else pixels).clone().contiguous(), labels.to(torch.int64, copy=True)
    )


def check_labels_within(labels: Tensor, num_classes: int, where: str) -> None:
    """Raise DataError for a label that is none of `num_classes` classes of the model `where`."""
    highest = int(labels.max())
    if highest >= num_classes:
        raise DataError(
            f"y has the label {highest}, but {where} has {num_classes} classes, 0 to "
            f"{num_classes - 1}: give the labels that the model was trained with."
        )


def _as_tensor(values: object, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        return torch.from_numpy(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} is a {type(values).__name__}: give a torch tensor or a NumPy array of numbers."
        ) from error


def _check_pixels(x: Tensor) -> None:
    shape = tuple(x.shape)
    if x.dim() != 4 or 0 in shape:
        raise DataError(
            f"x has shape {shape}: give images of shape (N, channels, height, width), at least one."
        )
    if not x.is_floating_point():
        raise DataError(
            f"x has type {x.dtype}: give floating-point images in [0, 1], such as x / 255."
        )
    if shape[1] > MAX_CHANNELS and shape[3] <= MAX_CHANNELS:
        raise DataError(
            f"x has shape {shape}, which looks like channels last: give (N, channels, height, "
            "width), such as x.permute(0, 3, 1, 2)."
        )
    low, high = float(x.min()), float(x.max())
    if not x.isfinite().all():
        raise DataError(
            "x contains values that are not finite (NaN or infinity): give pixels in [0, 1]."
        )
    if low < 0 or high > 1:
        raise DataError(
            f"x ranges from {low:.4g} to {high:.4g}: give pixels in [0, 1], and put a "
            "normalization inside the model."
        )


def _check_labels(y: Tensor, num_images: int) -> None:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(f"y has type {y.dtype}: give integer class indices from 0.")
    if tuple(y.shape) != (num_images,):
        raise DataError(
            f"y has shape {tuple(y.shape)} for {num_images} images: give one class index per image."
        )
    if int(y.min()) < 0:
        raise DataError(f"y has the label {int(y.min())}: labels start at 0.")
