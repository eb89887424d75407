"""PreActResNet-18 as implemented by DeepMind (Gowal et al. 2020; 12.5 M parameters).

Parameters have the published names (`layer_0.0.conv_2d_1`, `logits`), so that the official weights
of ADR and of many RobustBench models can be loaded.
"""

from collections.abc import Callable

from torch import Tensor, nn

from adrbench.models.normalize import add_normalization
from adrbench.models.same_padding import pad_same


class PreActBlock(nn.Module):
    """BatchNorm and activation before each convolution; the shortcut is on the raw input.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.stride = stride
        self.activation = activation()
        self.batchnorm_0 = nn.BatchNorm2d(in_planes)
        self.conv_2d_1 = nn.Conv2d(in_planes, planes, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(planes)
        self.conv_2d_2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.has_shortcut = stride != 1 or in_planes != planes
        if self.has_shortcut:
            self.shortcut = nn.Conv2d(in_planes, planes, 3, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; see the class for shapes."""
        out = self.activation(self.batchnorm_0(x))
        out = self.conv_2d_1(pad_same(out, self.stride))
        out = self.conv_2d_2(self.activation(self.batchnorm_1(out)))
        shortcut = self.shortcut(pad_same(x, self.stride)) if self.has_shortcut else x
        total: Tensor = out + shortcut
        return total


class PreActResNet18(nn.Module):
    """PreActResNet-18: pixels (N, C, H, W) in [0, 1] to logits (N, num_classes).

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
        self.conv_2d = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.layer_0 = _build_stage(64, 64, 1, activation)
        self.layer_1 = _build_stage(64, 128, 2, activation)
        self.layer_2 = _build_stage(128, 256, 2, activation)
        self.layer_3 = _build_stage(256, 512, 2, activation)
        self.batchnorm = nn.BatchNorm2d(512)
        self.activation = activation()
        self.logits = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of pixels (N, C, H, W) in [0, 1]."""
        out = self.conv_2d((x - self.mean) / self.std)
        out = self.layer_3(self.layer_2(self.layer_1(self.layer_0(out))))
        out = self.activation(self.batchnorm(out))
        logits: Tensor = self.logits(out.mean(dim=(2, 3)))
        return logits


def _build_stage(
    in_planes: int, planes: int, stride: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    return nn.Sequential(
        PreActBlock(in_planes, planes, stride, activation),
        PreActBlock(planes, planes, 1, activation),
    )
