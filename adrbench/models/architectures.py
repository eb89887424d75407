"""The table of architectures, and the construction of a newly initialized model from a name.

Every model takes pixels in [0, 1] of shape (N, C, H, W), normalizes them, and returns logits
(N, num_classes). Adding an architecture is one module and one line in `ARCHITECTURES`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from adrbench.errors import UsageError, unknown_name
from adrbench.models.normalize import normalization_buffers
from adrbench.models.preact_resnet import PreActResNet18
from adrbench.models.resnet import ResNet18
from adrbench.models.small_cnn import SmallCNN
from adrbench.models.wide_resnet import WideResNet


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An entry of the table; `build` takes the sizes in the name, then keyword arguments."""

    explanation: str
    build: Callable[..., nn.Module]


WRN = "wrn-D-K"
ARCHITECTURES: dict[str, Architecture] = {
    "small-cnn": Architecture(
        explanation="three convolutions, 24 k parameters; for digits and quick tests",
        build=SmallCNN,
    ),
    "resnet18": Architecture(
        explanation="ResNet-18 with the 3x3 stem of CIFAR, 11.2 M parameters",
        build=ResNet18,
    ),
    "preact-resnet18": Architecture(
        explanation="pre-activation ResNet-18 in DeepMind's form, 12.5 M parameters",
        build=PreActResNet18,
    ),
    WRN: Architecture(
        explanation="wide ResNet of depth D = 6 n + 4 and width K, such as wrn-28-10 or wrn-34-10",
        build=WideResNet,
    ),
}

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
ACTIVATIONS: tuple[str, ...] = tuple(_ACTIVATIONS)


def canonical_arch(arch: str) -> str:
    """Return the canonical spelling of `arch`: lower case, no leading zeros.

    Raises `UsageError` for an unknown name, or a wide ResNet of invalid depth or width.
    """
    name, sizes = _parse(arch)
    return "-".join(["wrn", *map(str, sizes)]) if name == WRN else name


def build_model(
    arch: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    activation: str = "relu",
) -> nn.Module:
    """Return a model in train mode, initialized from torch's global generator.

    It maps pixels (N, in_channels, H, W) in [0, 1] to logits (N, num_classes); `mean` and `std`
    are per channel for pixels in [0, 1] and default to no normalization. Raises `UsageError` for
    an unknown architecture or activation, or an invalid number.
    """
    key, sizes = _parse(arch)
    if activation not in _ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    for name, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise UsageError(f"{name} is {count}: it must be at least 1.")
    mean_buffer, std_buffer = normalization_buffers(mean, std, in_channels)
    return ARCHITECTURES[key].build(
        *sizes,
        num_classes=num_classes,
        mean=mean_buffer,
        std=std_buffer,
        activation=_ACTIVATIONS[activation],
    )


def _parse(arch: str) -> tuple[str, tuple[int, ...]]:
    """Return the key of `ARCHITECTURES` and the sizes in the name `arch`."""
    name = arch.strip().lower()
    wide = re.fullmatch(r"wrn-0*(\d{1,4})-0*(\d{1,4})", name)
    if wide:
        depth, width = int(wide[1]), int(wide[2])
        _check_wide(arch, depth, width)
        return WRN, (depth, width)
    if name in ARCHITECTURES:
        return name, ()
    examples = ["wrn-28-10", "wrn-34-10", WRN]
    raise unknown_name("architecture", arch, [*(n for n in ARCHITECTURES if n != WRN), *examples])


def _check_wide(arch: str, depth: int, width: int) -> None:
    if depth >= 10 and (depth - 4) % 6 == 0 and width >= 1:
        return
    below = max(10, depth - (depth - 4) % 6)
    depths = sorted({below, below if depth <= below else below + 6})
    nearest = " or ".join(f"wrn-{valid}-{max(1, width)}" for valid in depths)
    raise UsageError(
        f"architecture {arch!r} does not exist: a wide ResNet has depth 6 n + 4 "
        f"(10, 16, 22, 28, 34, ...) and width 1 or more; did you mean {nearest}?"
    )
