"""What a model is held in for a while: a mode, without parameter gradients, resting statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Take no gradients of parameters, whose computation an attack on images does not need."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in training or evaluation mode, and each back in its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances of every BatchNorm."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [entry for layer in layers for entry in (layer.running_mean, layer.running_var)]
    return [entry for entry in kept if entry is not None]


@contextmanager
def resting_statistics(model: nn.Module) -> Iterator[None]:
    """Let passes in training mode leave BatchNorm's running statistics as they are."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
