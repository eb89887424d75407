"""Architectures: the built-in table, the lookup of others, and the construction of networks.

An architecture is a callable `(num_classes, in_channels) -> nn.Module`, whose network takes pixels
(N, C, H, W) in [0, 1] without normalization and returns logits (N, num_classes). Adding one to the
package is one module and one line in `ARCHITECTURES`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from adrbench.errors import UsageError, unknown_name
from adrbench.models import timm_models
from adrbench.models.foreign import (
    Builder,
    call_builder,
    check_builder,
    check_logits,
    name_builder,
)
from adrbench.models.normalize import Normalized, normalization_buffers, set_normalization
from adrbench.models.preact_resnet import PreActResNet18
from adrbench.models.resnet import ResNet18
from adrbench.models.small_cnn import SmallCNN
from adrbench.models.wide_resnet import WideResNet
from adrbench.printable import get_logger
from adrbench.registry import Plugin, check_foreign, resolve

logger = get_logger(__name__)

#: name -> summary and builder, which also has a keyword `activation`.
#: `find_architecture` also accepts `wrn-D-K`.
ARCHITECTURES: dict[str, tuple[str, Builder]] = {
    "small-cnn": (
        "three convolutions, 24,000 parameters; for digits and quick tests",
        SmallCNN,
    ),
    "resnet18": (
        "ResNet-18 with the 3x3 stem of CIFAR, 11.2 M parameters",
        ResNet18,
    ),
    "preact-resnet18": (
        "pre-activation ResNet-18 as implemented by DeepMind, 12.5 M parameters",
        PreActResNet18,
    ),
}
WRN = re.compile(r"wrn-0*([0-9]{1,18})-0*([0-9]{1,18})")
#: A wide ResNet of depth 6 n + 4 and width K has about this times n K^2 parameters.
WRN_PARAMETERS = 18 * (16**2 + 32**2 + 64**2)
#: Five times as many as the largest that is published, wrn-106-16.
MOST_PARAMETERS = 2 * 10**9
#: What an error offers beside the names in the table.
EXAMPLES = (
    *("wrn-28-10", "wrn-34-10", "wrn-D-K"),
    *(f"{timm_models.PREFIX}NAME", "package.module:attribute"),
)
WRN_SUMMARY = "wide ResNet of depth D = 6 n + 4 and width K, such as wrn-28-10 or wrn-34-10"

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
ACTIVATIONS: tuple[str, ...] = tuple(_ACTIVATIONS)
DEFAULT_ACTIVATION = "relu"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A builder, and its `name` in records and checkpoints.

    `plugin` is the plugin that registered the name, if any.
    """

    name: str
    build: Builder
    is_built_in: bool = False
    plugin: Plugin | None = None

    @property
    def plugins(self) -> dict[str, str]:
        """The plugin with its version by what it provides, as checkpoints have it."""
        return {f"architectures:{self.name}": str(self.plugin)} if self.plugin else {}


def find_architecture(arch: str | Builder) -> Architecture:
    """Return the architecture of a name, or of a callable, whose name is `module:qualname`.

    A name is that of a built-in architecture or of a plugin, `timm:NAME`, or an import path. Its
    code is imported.

    Raises:
        UsageError: for an unknown name, or an object that is not a callable.
        ImportPathError: when the code behind the name cannot be imported.

    """
    if not isinstance(arch, str):
        return Architecture(name=name_builder(arch), build=arch)
    name = canonical_arch(arch)
    if builder := find_builtin(name):
        return Architecture(name=name, build=builder, is_built_in=True)
    if name.startswith(timm_models.PREFIX):
        return Architecture(name=name, build=timm_models.find_builder(name))
    found = resolve("architectures", name)
    check_builder(name, found.value)
    return Architecture(name=name, build=found.value, plugin=found.plugin)


def canonical_arch(arch: str) -> str:
    """Return the canonical spelling of `arch`: of a built-in one lower case, no leading zeros.

    Import paths, those of plugins included, are not checked, since that would import them.

    Raises:
        UsageError: for an unknown name, or a wide ResNet of invalid depth or width.

    """
    name = arch.strip()
    lower = name.lower()
    if wide := WRN.fullmatch(lower):
        depth, width = int(wide[1]), int(wide[2])
        _check_wide(arch, depth, width)
        return f"wrn-{depth}-{width}"
    if lower in ARCHITECTURES:
        return lower
    if not name.startswith(timm_models.PREFIX):
        check_foreign("architectures", name, [*ARCHITECTURES, *EXAMPLES])
    return name


def is_imported(arch: str) -> bool:
    """Return whether `arch`, a canonical name, is an import path.

    Such a name in a file does not cause an import.
    """
    is_known = find_builtin(arch) or arch.startswith(timm_models.PREFIX)
    return not is_known and ":" in arch


def find_activation(architecture: Architecture, activation: str) -> str:
    """Return the activation of its networks: `activation` where it can be chosen.

    Logs a warning if a non-default activation is ignored.

    Raises:
        UsageError: for an unknown activation.

    """
    if activation not in _ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if not architecture.is_built_in and activation != DEFAULT_ACTIVATION:
        logger.warning(f"the activation {activation} is ignored: {architecture.name} has its own.")
        return DEFAULT_ACTIVATION
    return activation


def build_model(
    arch: str | Builder | Architecture,
    *,
    num_classes: int,
    in_channels: int = 3,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    activation: str = DEFAULT_ACTIVATION,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """Return a model in train mode, initialized from torch's global generator.

    It maps pixels (N, in_channels, H, W) in [0, 1] to logits (N, num_classes); `mean` and `std`
    are per channel for pixels in [0, 1] and default to no normalization. They are buffers of a
    built-in network; every other one becomes the `network` of a `Normalized`. `image_size` is
    (H, W): a network that depends on it gets it, and one that is not built in is tried on two
    images of that size.

    Raises:
        UsageError: for an unknown architecture or activation, an invalid number, or a network that
            does not return logits for such images.
        ImportPathError: when a builder that is not built in cannot be imported, or raises.

    """
    architecture = arch if isinstance(arch, Architecture) else find_architecture(arch)
    name = architecture.name
    activation = find_activation(architecture, activation)
    for size, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise UsageError(f"{size} is {count}: it must be at least 1.")
    mean_buffer, std_buffer = normalization_buffers(mean, std, in_channels)
    if architecture.is_built_in:
        model = architecture.build(num_classes, in_channels, activation=_ACTIVATIONS[activation])
        set_normalization(model, mean_buffer, std_buffer)
        return model
    network = call_builder(name, architecture.build, num_classes, in_channels, image_size)
    model = Normalized(network, mean_buffer, std_buffer).train()
    if image_size is not None:
        check_logits(name, model, (in_channels, *image_size), num_classes)
    return model


def find_builtin(name: str) -> Builder | None:
    """Return the builder of a canonical name, None for one that is not built in."""
    if wide := WRN.fullmatch(name):
        return partial(WideResNet, int(wide[1]), int(wide[2]))
    return ARCHITECTURES[name][1] if name in ARCHITECTURES else None


def _check_wide(arch: str, depth: int, width: int) -> None:
    if WRN_PARAMETERS * (depth // 6) * width**2 > MOST_PARAMETERS:
        raise UsageError(
            f"architecture {arch!r} would have more than {MOST_PARAMETERS:,} parameters: give a "
            "smaller depth or width, such as wrn-34-10."
        )
    if depth >= 10 and (depth - 4) % 6 == 0 and width >= 1:
        return
    below = max(10, depth - (depth - 4) % 6)
    depths = sorted({below, below if depth <= below else below + 6})
    nearest = " or ".join(f"wrn-{valid}-{max(1, width)}" for valid in depths)
    raise UsageError(
        f"architecture {arch!r} does not exist: a wide ResNet has depth 6 n + 4 "
        f"(10, 16, 22, 28, 34, ...) and width 1 or more; did you mean {nearest}?"
    )
