"""Normalization inside the model, so that attacks act on pixels in [0, 1].

Every architecture has the per-channel constants as buffers `mean` and `std` of shape (C, 1, 1),
which this module creates and validates.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from adrbench.errors import UsageError


def normalization_buffers(
    mean: Sequence[float], std: Sequence[float], in_channels: int
) -> tuple[Tensor, Tensor]:
    """Return `mean` and `std` as tensors of shape (C, 1, 1), for pixels in [0, 1].

    An empty sequence means no shift (zeros) or no scaling (ones). Raises `UsageError` when the
    number of values is not `in_channels`, a value is not finite, or a std is not positive.
    """
    values = {"mean": list(mean) or [0.0] * in_channels, "std": list(std) or [1.0] * in_channels}
    for name, numbers in values.items():
        if len(numbers) != in_channels:
            raise UsageError(
                f"normalization {name} {tuple(numbers)} has {len(numbers)} values for images of "
                f"{in_channels} channels: give one value per channel."
            )
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError(
                f"normalization {name} {tuple(numbers)} is not finite: give numbers in [0, 1]."
            )
    if min(values["std"]) <= 0:
        raise UsageError(
            f"normalization std {tuple(values['std'])} must be above 0: "
            "give the standard deviation of each channel for pixels in [0, 1]."
        )
    return (
        torch.tensor(values["mean"]).view(in_channels, 1, 1),
        torch.tensor(values["std"]).view(in_channels, 1, 1),
    )
