"""Normalization inside the model, so that attacks act on pixels in [0, 1].

The per-channel constants are buffers `mean` and `std` of shape (C, 1, 1): of a built-in network
itself, and of the wrapper around every other one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adrbench.errors import UsageError


class Normalized(nn.Module):
    """A `network` with a normalization in front: it receives (x - mean) / std for pixels x.

    It maps pixels (N, C, H, W) in [0, 1] to the output of the network;
    `mean` and `std` are (C, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        add_normalization(self, len(mean))
        set_normalization(self, mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output for normalized pixels."""
        output: Tensor = self.network((x - self.mean) / self.std)
        return output


def add_normalization(model: nn.Module, in_channels: int) -> None:
    """Register the buffers `mean`, zeros, and `std`, ones, of shape (C, 1, 1)."""
    mean, std = normalization_buffers((), (), in_channels)
    model.register_buffer("mean", mean)
    model.register_buffer("std", std)


def set_normalization(model: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Fill the buffers `mean` and `std` of a model with constants of shape (C, 1, 1)."""
    model.get_buffer("mean").copy_(mean)
    model.get_buffer("std").copy_(std)


def normalization_buffers(
    mean: Sequence[float], std: Sequence[float], in_channels: int
) -> tuple[Tensor, Tensor]:
    """Return `mean` and `std` as float32 tensors of shape (C, 1, 1), for pixels in [0, 1].

    An empty sequence means no shift (zeros) or no scaling (ones). Raises `UsageError` when the
    number of values is not `in_channels`, or where a value, rounded to float32, is not finite or
    a std not positive.
    """
    values = {"mean": list(mean) or [0.0] * in_channels, "std": list(std) or [1.0] * in_channels}
    for name, numbers in values.items():
        if len(numbers) != in_channels:
            raise UsageError(
                f"normalization {name} {tuple(numbers)} has {len(numbers)} values for images of "
                f"{in_channels} channels: give one value per channel."
            )
        if not all(math.isfinite(number) for number in _round_to_float32(numbers)):
            raise UsageError(
                f"normalization {name} {tuple(numbers)} is not finite: give numbers in [0, 1]."
            )
    if min(_round_to_float32(values["std"])) <= 0:
        raise UsageError(
            f"normalization std {tuple(values['std'])} must be above 0: "
            "give the standard deviation of each channel for pixels in [0, 1]."
        )
    mean_buffer, std_buffer = (
        torch.tensor(values[name], dtype=torch.float32).view(in_channels, 1, 1)
        for name in ("mean", "std")
    )
    return mean_buffer, std_buffer


def _round_to_float32(numbers: Sequence[float]) -> list[float]:
    rounded: list[float] = torch.tensor(numbers, dtype=torch.float32, device="cpu").tolist()
    return rounded
