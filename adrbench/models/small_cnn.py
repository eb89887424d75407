"""A small network for 8x8 digits, demonstrations and tests (24 k parameters)."""

from collections.abc import Callable

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three blocks of convolution, BatchNorm and activation, and a linear layer.

    Pixels (N, C, H, W) in [0, 1] to logits (N, num_classes). `mean` and `std` are (C, 1, 1); they
    become buffers and determine the number of input channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, num_classes: int, mean: Tensor, std: Tensor, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.features = nn.Sequential(
            _build_block(len(mean), 16, 1, activation),
            _build_block(16, 32, 2, activation),
            _build_block(32, 64, 2, activation),
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of pixels (N, C, H, W) in [0, 1]."""
        out = self.features((x - self.mean) / self.std)
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _build_block(
    in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(planes),
        activation(),
    )
