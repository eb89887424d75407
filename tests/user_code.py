"""Modules and plugins of a user's, written to a directory from which they can be imported."""

import sys
import textwrap
from pathlib import Path

import pytest

from adrbench import registry

#: A small network with a BatchNorm, a LayerNorm or none, and what a user may get wrong.
NETWORKS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.linear(self.conv(x).relu().mean((2, 3)))


class SizedNet(nn.Module):
    def __init__(self, num_classes, in_channels, img_size=224):
        super().__init__()
        self.linear = nn.Linear(in_channels * img_size**2, num_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


def build(num_classes, in_channels):
    return Net(num_classes, in_channels)


torch.manual_seed(0)
ready = Net(10, 1)


def no_arguments():
    return ready


def raises(*sizes):
    raise KeyError("weights.pt")


def exits(*sizes):
    raise SystemExit(0)


def on_meta(*sizes):
    return Net(10, 1).to("meta")


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


class WithoutState(Net):
    def __init__(self):
        super().__init__(10, 1)

    def state_dict(self, *args, **kwargs):
        raise KeyError("weights")


def of_classes(num_classes):
    return Net(num_classes, 1)


def returns_a_list(*sizes):
    return [1, 2]


def of_eleven_classes(num_classes=10, in_channels=1):
    return Net(11, in_channels)


def of_a_map(num_classes=10, in_channels=1):
    return nn.Conv2d(in_channels, num_classes, 1)


class Tuple(Net):
    def forward(self, x):
        return super().forward(x), None


number = 3
"""


def write_module(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str = NETWORKS
) -> None:
    """Write a module into `directory`, and make that the working directory of the test."""
    (directory / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, name, raising=False)


def install_plugin(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, path: str
) -> None:
    """Install a distribution `my-plugin` 1.5 that registers an import path as `name`."""
    info = directory / "my_plugin-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[adrbench.{kind}]\n{name} = {path}\n")
    monkeypatch.syspath_prepend(str(directory))
    registry._registered.cache_clear()
