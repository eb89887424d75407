"""Temporary states of a model: its mode, parameter gradients off, BatchNorm statistics frozen."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from adrbench.registry import calling_user_code


@contextmanager
def without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Turn off parameter gradients, which an attack on images does not need."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in training or eval mode, and restore each module's mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def restored_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model, such as BatchNorm's running statistics, afterwards."""
    held = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in held:
                buffer.copy_(value)
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)


def without_inference_tensors(model: nn.Module) -> nn.Module:
    """Return a model whose tensors can take part in autograd: the model itself, or else a copy.

    Tensors made in `torch.inference_mode` cannot take part, and stay so.

    Raises:
        UserCodeError: when a model with such tensors cannot be copied.

    """
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        tensors += [value for value in vars(module).values() if isinstance(value, Tensor)]
    if not any(tensor.is_inference() for tensor in tensors):
        return model
    copies: dict[int, Tensor] = {}
    for tensor in tensors:
        copied = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(copied, requires_grad=False) if is_parameter else copied
    with calling_user_code(
        lambda raised: (
            f"the model has weights made in torch.inference_mode(), and copying it "
            f"{raised}: make its weights outside of inference mode."
        )
    ):
        return copy.deepcopy(model, copies)


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a model to `device`, and back to its original device afterwards."""
    before = device_of(model)
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, the CPU if it has neither."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances of every BatchNorm."""
    layers = _batch_norms(model)
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    return [buffer for buffer in buffers if buffer is not None]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Freeze BatchNorm's running statistics, also during passes in training mode."""
    layers = _batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
