"""A frozen model in float16 or bfloat16, with which attacks search, and its fallback to float32.

Images, logits and gradients are float32. What an attack finds with it is judged by the float32
model.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.errors import first_line
from adrbench.models.frozen import (
    COMPARED_IMAGES,
    gradient_difference,
    logits_and_gradient,
    relative_difference,
)
from adrbench.runtime.arithmetic import GRADIENT_TOLERANCES, TOLERANCES, Arithmetic
from adrbench.runtime.devices import IMAGE_FORMAT

#: Layers that compute in the type of their weights. All other weights and buffers stay in float32,
#: such as those of BatchNorm, which accepts inputs of a reduced type, and of the normalization.
REDUCED_LAYERS = (_ConvNd, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.PReLU)

#: The largest entry of an image's logit gradient is scaled to [2^TARGET_EXPONENT, twice that). In
#: a ResNet-18, most entries of the gradients inside are then 1e-3 or more and the largest below
#: 64, where float16 has its full precision from 6e-5 to 65,504.
TARGET_EXPONENT = 5
#: The layout of float32 numbers: a sign, the exponent plus a bias, and the bits of the mantissa.
MANTISSA_BITS, EXPONENT_BIAS, LARGEST_BIASED = 23, 127, 254


class GradientScaling(nn.Module):
    """`network`, whose backward pass is protected from underflow and overflow.

    The gradient of each image's logits is multiplied by a power of two, which depends on the image
    alone, and the gradient of the image is divided by it. In exact arithmetic this changes nothing.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits (N, num_classes) of float32 images (N, C, H, W)."""
        x, carrier = _UnscaleGradient.apply(x)
        logits: Tensor = _ScaleGradient.apply(self.network(x).float(), carrier)
        return logits


class Fallback(nn.Module):
    """`search`, replaced by the float32 model `exact` for batches with results that are not finite.

    These are logits in the forward pass and image gradients in the backward pass. Each pass
    synchronizes with the device once; `search` and `exact` may be graphed, this module cannot be.
    """

    def __init__(self, search: nn.Module, exact: nn.Module) -> None:
        super().__init__()
        self.search = search
        self.exact = exact
        #: The number of passes, forward or backward, that were repeated in float32.
        self.repeated = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits (N, num_classes) of float32 images (N, C, H, W)."""
        images = x.view_as(x)
        logits: Tensor = self.search(images)
        if not _is_finite(logits):
            self.repeated += 1
            exact_logits: Tensor = self.exact(x)
            return exact_logits
        if not (images.requires_grad and logits.requires_grad):
            return logits
        logits = logits.clone()
        d_logits: list[Tensor] = []

        def keep(gradient: Tensor) -> None:
            d_logits[:] = [gradient]

        def check(gradient: Tensor) -> Tensor | None:
            return None if _is_finite(gradient) else self._exact_gradient(x, d_logits[0])

        logits.register_hook(keep)  # type: ignore[no-untyped-call]
        images.register_hook(check)  # type: ignore[no-untyped-call]
        return logits

    def _exact_gradient(self, x: Tensor, d_logits: Tensor) -> Tensor:
        self.repeated += 1
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.exact(x), x, d_logits)
        return gradient


def reduce_precision(frozen: nn.Module, arithmetic: Arithmetic, x: Tensor) -> GradientScaling:
    """Return a copy of a frozen float32 model that computes in float16 or bfloat16.

    Convolutions are in channels last. A linear layer whose outputs are the logits computes in
    float32, since float16 resolves a logit of 4 only to 0.004. Logits and image gradients are
    compared with those of `frozen` on the first few of the images `x` (N, C, H, W).

    Raises:
        ValueError: with the reason, a clause such as "its logits in float16 are not finite", when
            the model cannot be copied or computed in `arithmetic`, or its logits or gradients
            differ too much; attacks must then search in float32.

    """
    compared = x[:COMPARED_IMAGES]
    try:
        network = copy.deepcopy(frozen)
        _convert_layers(network, getattr(torch, arithmetic), find_last_linear(network, x[:1]))
        reduced = GradientScaling(convert_conv2d_weight_memory_format(network, IMAGE_FORMAT)).eval()
        found = logits_and_gradient(reduced, compared)
        exact = logits_and_gradient(frozen, compared)
    except Exception as error:  # this runs the model's code, which may raise anything
        raise ValueError(f"it cannot compute in {arithmetic} ({first_line(error)})") from error
    if not all(_is_finite(one) for one in found):
        raise ValueError(f"its logits or gradients in {arithmetic} are not finite")
    differences = {
        "logits": (relative_difference(exact[0], found[0]), TOLERANCES),
        "gradients": (gradient_difference(exact[1], found[1]), GRADIENT_TOLERANCES),
    }
    for what, (difference, tolerances) in differences.items():
        if not difference <= tolerances[arithmetic]:
            raise ValueError(
                f"its {what} in {arithmetic} differ from those in float32 by {difference:.2g} of "
                f"their size, more than {tolerances[arithmetic]:g}"
            )
    return reduced


def find_last_linear(model: nn.Module, x: Tensor) -> nn.Linear | None:
    """Return the linear layer whose outputs are the logits of `model` on `x`, if there is one."""
    outputs: list[tuple[nn.Linear, Tensor]] = []
    linear_layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [
        layer.register_forward_hook(lambda layer, _, output: outputs.append((layer, output)))
        for layer in linear_layers
    ]
    try:
        with torch.no_grad():
            logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return next((layer for layer, output in outputs if output is logits), None)


def _convert_layers(network: nn.Module, dtype: torch.dtype, exact: nn.Module | None) -> None:
    """Convert layers, except `exact`, to `dtype`, and make all cast their inputs."""
    for layer in network.modules():
        if isinstance(layer, REDUCED_LAYERS):
            if layer is not exact:
                layer.to(dtype)
            layer.register_forward_pre_hook(_cast_inputs)


def _cast_inputs(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        return inputs
    return tuple(one.to(weight.dtype) if isinstance(one, Tensor) else one for one in inputs)


class _UnscaleGradient(torch.autograd.Function):
    """Divides the gradient of each image by its scale, which it receives with the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `x`, and the carrier (N,), whose gradient is the scale of each image."""
        return x.view_as(x), x.new_zeros(len(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient, scale = gradients
        return gradient / _per_row(scale, gradient)


class _ScaleGradient(torch.autograd.Function):
    """Scales the gradient of each image's logits, and passes the scale on to the carrier."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, carrier: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        scale = find_scale(gradient)
        return gradient * _per_row(scale, gradient), scale


def find_scale(gradient: Tensor) -> Tensor:
    """Return the power of two (N,) that scales the largest entry of each float32 row as intended.

    It is 1 for rows that are zero or not finite. The power is made from the bits of an exponent, so
    it is exact on every device, and nothing waits for the device.
    """
    largest = gradient.abs().flatten(1).amax(1)
    biased = largest.view(torch.int32) >> MANTISSA_BITS
    # The reciprocal of the scale must be a normal number too.
    wanted = (2 * EXPONENT_BIAS + TARGET_EXPONENT - biased).clamp(1, LARGEST_BIASED - 1)
    scale = (wanted << MANTISSA_BITS).view(torch.float32)
    return scale.masked_fill((largest == 0) | ~largest.isfinite(), 1.0)


def _per_row(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *(1 for _ in like.shape[1:]))


def _is_finite(x: Tensor) -> bool:
    return bool(x.isfinite().all())
