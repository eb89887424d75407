"""Wide residual networks (Zagoruyko & Komodakis 2016), DeepMind's variant (Gowal et al. 2020).

Parameters have the published names (`layer.0.block.0.conv_0`, `logits`), so that the official
weights of ADR and of many RobustBench models can be loaded. WRN-28-10 has 36.48 M parameters with
10 classes, WRN-34-10 46.16 M.
"""

from collections.abc import Callable

from torch import Tensor, nn

from adrbench.models.normalize import add_normalization
from adrbench.models.same_padding import pad_same


class WideBlock(nn.Module):
    """BatchNorm and activation before each convolution.

    Only a block that changes the channels has a 1x1 shortcut, which is on the activated input.
    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.stride = stride
        self.activation = activation()
        self.batchnorm_0 = nn.BatchNorm2d(in_planes)
        self.conv_0 = nn.Conv2d(in_planes, planes, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(planes)
        self.conv_1 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.has_shortcut = in_planes != planes
        if self.has_shortcut:
            self.shortcut = nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; see the class for shapes."""
        activated = self.activation(self.batchnorm_0(x))
        out = self.conv_0(pad_same(activated, self.stride))
        out = self.conv_1(self.activation(self.batchnorm_1(out)))
        shortcut = self.shortcut(activated) if self.has_shortcut else x
        total: Tensor = out + shortcut
        return total


class BlockGroup(nn.Module):
    """Blocks of one width; the first changes the channels and strides."""

    def __init__(
        self,
        num_blocks: int,
        in_planes: int,
        planes: int,
        stride: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        first = WideBlock(in_planes, planes, stride, activation)
        others = [WideBlock(planes, planes, 1, activation) for _ in range(num_blocks - 1)]
        self.block = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, planes, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.block(x)
        return out


class WideResNet(nn.Module):
    """WRN-depth-width: pixels (N, C, H, W) in [0, 1] to logits (N, num_classes).

    `depth` is 6 n + 4 for n >= 1 blocks per group; the groups have 16, 32 and 64 times `width`
    channels. The buffers `mean` and `std`, (C, 1, 1), have no effect until they are set.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int,
        in_channels: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        num_blocks = (depth - 4) // 6
        add_normalization(self, in_channels)
        self.init_conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer = nn.Sequential(
            BlockGroup(num_blocks, 16, 16 * width, 1, activation),
            BlockGroup(num_blocks, 16 * width, 32 * width, 2, activation),
            BlockGroup(num_blocks, 32 * width, 64 * width, 2, activation),
        )
        self.batchnorm = nn.BatchNorm2d(64 * width)
        self.activation = activation()
        self.logits = nn.Linear(64 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of pixels (N, C, H, W) in [0, 1]."""
        out = self.layer(self.init_conv((x - self.mean) / self.std))
        out = self.activation(self.batchnorm(out))
        logits: Tensor = self.logits(out.mean(dim=(2, 3)))
        return logits
