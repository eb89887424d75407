"""An architecture: a callable (num_classes, in_channels) that returns a network."""

from torch import nn


def build(num_classes: int, in_channels: int) -> nn.Module:
    """Two convolutions, the first with a 5x5 kernel, and a linear layer.

    The network maps pixels (N, in_channels, H, W) in [0, 1] to logits (N, num_classes); training
    adds the normalization of the data set.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, kernel_size=5, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )
