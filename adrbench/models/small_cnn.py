"""A small network for 8x8 digits, demonstrations and tests (24,000 parameters)."""

from collections.abc import Callable

from torch import Tensor, nn

from adrbench.models.normalize import add_normalization


class SmallCNN(nn.Module):
    """Three blocks of convolution, BatchNorm and activation, and a linear layer.

    Pixels (N, C, H, W) in [0, 1] to logits (N, num_classes). The buffers `mean` and `std`,
    (C, 1, 1), have no effect until they are set.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        add_normalization(self, in_channels)
        self.features = nn.Sequential(
            _build_block(in_channels, 16, 1, activation),
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
