"""ResNet-18 in its CIFAR form: a 3x3 stem and no max pooling (He et al. 2016, 11.17 M parameters).

Parameters have the names of common CIFAR implementations (`layer1.0.conv1`,
`layer2.0.shortcut.0`, `linear`), so that weights trained by them can be loaded.
"""

from collections.abc import Callable

from torch import Tensor, nn

from adrbench.models.normalize import add_normalization


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(
        self, in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; see the class for shapes."""
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        activated: Tensor = self.activation(out)
        return activated


class ResNet18(nn.Module):
    """ResNet-18 for small images: pixels (N, C, H, W) in [0, 1] to logits (N, num_classes).

    The buffers `mean` and `std`, (C, 1, 1), have no effect until they are set.
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
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.activation = activation()
        self.layer1 = _build_stage(64, 64, 1, activation)
        self.layer2 = _build_stage(64, 128, 2, activation)
        self.layer3 = _build_stage(128, 256, 2, activation)
        self.layer4 = _build_stage(256, 512, 2, activation)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of pixels (N, C, H, W) in [0, 1]."""
        out = (x - self.mean) / self.std
        out = self.activation(self.bn1(self.conv1(out)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _build_stage(
    in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_planes, planes, stride, activation), BasicBlock(planes, planes, 1, activation)
    )
