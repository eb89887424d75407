"""Networks that are not built in: calling their builders, and checking what they return."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.errors import UsageError
from adrbench.models.modes import in_mode
from adrbench.registry import ImportPathError, UserCodeError, calling_user_code
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.hashing import hash_weights

#: (num_classes, in_channels) -> network. One with a parameter of a name in `IMAGE_SIZE` gets the
#: size of the images too.
Builder = Callable[..., nn.Module]
IMAGE_SIZE = ("img_size", "image_size")
#: How many images a network is tried on.
NUM_TRIED = 2


def name_builder(builder: Builder) -> str:
    """Return `module:qualname` of a callable.

    Raises:
        UsageError: for an object that is not a callable.

    """
    while isinstance(builder, partial):
        builder = builder.func
    named: Any = builder if hasattr(builder, "__qualname__") else type(builder)
    name = f"{named.__module__}:{named.__qualname__}"
    check_builder(name, builder)
    return name


def check_builder(name: str, found: object) -> None:
    """Raise UsageError unless what was found under `name` can be called to build networks."""
    if isinstance(found, nn.Module):
        raise UsageError(
            f"architecture {name} is a network: give the class or function that builds it, "
            "(num_classes, in_channels) -> nn.Module."
        )
    if not callable(found):
        raise UsageError(
            f"architecture {name} is of type {type(found).__name__}: it must be a callable "
            "(num_classes, in_channels) that returns an nn.Module."
        )
    signature = _find_signature(found)
    try:
        if signature is not None:
            sizes = {one: None for one in IMAGE_SIZE if one in signature.parameters}
            signature.bind("num_classes", "in_channels", **sizes)
    except TypeError as error:
        parameters = ", ".join(signature.parameters) if signature else ""
        takes = f"({parameters})" if parameters else "no arguments"
        raise UsageError(
            f"architecture {name} takes {takes}, but is called with (num_classes, in_channels): "
            "write a function that takes both, such as `def build(num_classes, in_channels): "
            f"return {name.rpartition(':')[2]}(...)`, and give its name."
        ) from error


def call_builder(
    name: str,
    build: Builder,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None,
) -> nn.Module:
    """Return the new network of the architecture `name`, on the CPU; `image_size` is (H, W).

    Raises:
        ImportPathError: when the builder raises.
        UsageError: when it returns no module, or one without values.

    """
    options: dict[str, Any] = {}
    if image_size is not None:
        height, width = image_size
        size = height if height == width else image_size
        signature = _find_signature(build)
        parameters = signature.parameters if signature else ()
        options = {one: size for one in IMAGE_SIZE if one in parameters}
    what = f"{num_classes} classes and {in_channels} channels"
    if options and image_size:
        what += f" of {image_size[0]}x{image_size[1]} pixels"
    with calling_user_code(
        lambda raised: f"architecture {name} {raised} when it was built for {what}.",
        ImportPathError,
    ):
        network = build(num_classes, in_channels, **options)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"architecture {name} returned an object of type {type(network).__name__}: it must "
            "return an nn.Module."
        )
    check_has_values(f"architecture {name}", network, may_be_lazy=True)
    return network.cpu()


def fingerprint_weights(name: str, network: nn.Module) -> str:
    """Return the SHA-256 of the weights of a user's network, called `name` in errors.

    Raises:
        UsageError: when some of its weights have no values.
        UserCodeError: when its `state_dict` raises.

    """
    check_has_values(name, network)
    with calling_user_code(lambda raised: f"{name} {raised} when its state_dict() was called."):
        return hash_weights(network)


def check_has_values(name: str, network: nn.Module, *, may_be_lazy: bool = False) -> None:
    """Raise UsageError for a parameter or buffer without values: lazy, or on the meta device."""
    for key, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            if may_be_lazy:
                continue
            raise UsageError(
                f"{name} has a parameter without a shape, {key}, which the first images determine: "
                "call the network on a batch of images first."
            )
        if tensor.is_meta:
            raise UsageError(
                f"{name} has a parameter without values, {key}, on the meta device: create the "
                "network on another device, or load its weights."
            )


def check_logits(
    name: str, model: nn.Module, shape: tuple[int, int, int], num_classes: int
) -> None:
    """Try `model` of the architecture `name` in eval mode on two images of `shape` (C, H, W).

    The model is on the CPU. It is not changed, nor is torch's random state.

    Raises:
        UserCodeError: when it raises.
        UsageError: when it does not return their logits.

    """
    with in_mode(model, training=False), torch.no_grad():
        _try(name, model, torch.full((NUM_TRIED, *shape), 0.5), num_classes)


def find_training_format(
    name: str, model: nn.Module, shape: tuple[int, int, int], num_classes: int
) -> torch.memory_format:
    """Return the memory format in which `model`, on the CPU, trains on images of `shape` (C, H, W).

    This runs a forward and a backward pass of a copy in train mode. The format is `IMAGE_FORMAT`
    except for networks that need another, such as those that call `view` on the output of a
    convolution.

    Raises:
        UserCodeError: when the model raises.
        UsageError: when it does not return logits, or has no gradients.

    """
    try:
        _try_training(name, model, shape, num_classes, IMAGE_FORMAT)
    except (UsageError, UserCodeError):
        _try_training(name, model, shape, num_classes, torch.contiguous_format)
        return torch.contiguous_format
    return IMAGE_FORMAT


def _try_training(
    name: str,
    model: nn.Module,
    shape: tuple[int, int, int],
    num_classes: int,
    memory_format: torch.memory_format,
) -> None:
    """Run a forward and a backward pass of a copy of the model; raise if they fail."""
    with calling_user_code(
        lambda raised: (
            f"architecture {name} cannot be copied (copy.deepcopy {raised}), which averaging and "
            "attacks require: make its network support copy.deepcopy."
        )
    ):
        trial = convert_conv2d_weight_memory_format(copy.deepcopy(model), memory_format).train()
    x = torch.full((NUM_TRIED, *shape), 0.5).contiguous(memory_format=memory_format)
    logits = _try(name, trial, x.requires_grad_(), num_classes)
    with calling_user_code(
        lambda raised: (
            f"architecture {name} has no gradients (backward {raised}): its network must be "
            "differentiable."
        )
    ):
        logits.sum().backward()  # type: ignore[no-untyped-call]
    if x.grad is None or all(parameter.grad is None for parameter in trial.parameters()):
        what = "its images" if x.grad is None else "any parameter"
        raise UsageError(
            f"architecture {name} has no gradient with respect to {what}: adversarial training "
            "needs one."
        )


def _try(name: str, model: nn.Module, x: Tensor, num_classes: int) -> Tensor:
    """Return the logits of a model for images `x`; raise if it returns none."""
    shape = tuple(x.shape[1:])
    with (
        calling_user_code(
            lambda raised: (
                f"architecture {name} does not take images of shape {shape} (channels, height, "
                f"width), on which it {raised}: choose another architecture or data set."
            )
        ),
        torch.random.fork_rng(devices=[]),
    ):
        logits: object = model(x)
    expected = (len(x), num_classes)
    if not isinstance(logits, Tensor):
        found = f"an object of type {type(logits).__name__}"
    elif logits.shape != expected:
        found = f"shape {tuple(logits.shape)}"
    elif not logits.is_floating_point():
        found = f"numbers of type {logits.dtype}"
    else:
        return logits
    mode = "train" if model.training else "eval"
    raise UsageError(
        f"architecture {name} returned {found} in {mode} mode for {len(x)} images of shape "
        f"{shape}: it must return logits of shape {expected}, one per class."
    )


def _find_signature(builder: Builder) -> inspect.Signature | None:
    """Return the signature of a callable, None if it cannot be determined."""
    try:
        return inspect.signature(builder)
    except (TypeError, ValueError):
        return None
