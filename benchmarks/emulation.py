"""Emulation of the rounding of tensor cores, in float32 arithmetic on any device.

TF32 rounds the inputs of matrix products and convolutions to 10 bits of mantissa and accumulates in
float32. In float16 (10 bits, 5 of exponent) and bfloat16 (7 bits), the results are rounded too, and
so are those of the layers between them. The gradients of each are rounded alike.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Emulated = Literal["float32", "tf32", "bfloat16", "float16"]

#: The bits of a float32 mantissa that TF32 drops.
DROPPED_BITS = 13
#: What runs on tensor cores, and what runs between it in the type of its inputs.
PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    {torch.conv2d, F.linear, torch.matmul, Tensor.matmul}
)
BETWEEN: frozenset[Callable[..., Any]] = frozenset(
    {
        F.batch_norm,
        F.relu,
        torch.relu,
        F.silu,
        Tensor.add,
        Tensor.add_,
        torch.add,
        Tensor.__iadd__,
        Tensor.mean,
        F.avg_pool2d,
        F.adaptive_avg_pool2d,
    }
)


def round_to(x: Tensor, arithmetic: Emulated) -> Tensor:
    """Return float32 `x` rounded to the nearest number of another type, as float32."""
    match arithmetic:
        case "bfloat16":
            return x.bfloat16().float()
        case "float16":
            return x.half().float()
        case "tf32":
            bits = x.view(torch.int32)
            half = (1 << (DROPPED_BITS - 1)) - 1 + ((bits >> DROPPED_BITS) & 1)  # ties to even
            return ((bits + half) & -(1 << DROPPED_BITS)).view(torch.float32)
    return x


class _Round(torch.autograd.Function):
    """Rounds a tensor in the forward pass, its gradient in the backward pass, or both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Emulated, backward: Emulated) -> Tensor:
        ctx.backward_arithmetic = backward
        rounded = round_to(x, forward)
        return x.view_as(x) if rounded is x else rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return round_to(gradients[0], ctx.backward_arithmetic), None, None


class Rounding(TorchFunctionMode):
    """Within this context, layers round as they do in `arithmetic`, except the layer `exact`."""

    def __init__(self, arithmetic: Emulated, exact: nn.Linear | None = None) -> None:
        super().__init__()
        self.arithmetic = arithmetic
        self.exact = exact

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, with its inputs and its result rounded where it is a layer."""
        kwargs = kwargs or {}
        if func is F.linear and self.exact is not None and args[1] is self.exact.weight:
            return func(*args, **kwargs)
        arithmetic = self.arithmetic
        is_tf32 = arithmetic == "tf32"
        if func in PRODUCTS:
            back: Emulated = "float32" if is_tf32 else arithmetic
            args = tuple(
                _Round.apply(value, arithmetic, back) if isinstance(value, Tensor) else value
                for value in args
            )
            result = func(*args, **kwargs)
            return _Round.apply(result, back, arithmetic)
        result = func(*args, **kwargs)
        if func in BETWEEN and not is_tf32 and result.is_floating_point():
            return _Round.apply(result, arithmetic, arithmetic)
        return result


class EmulatedNetwork(nn.Module):
    """`network`, whose layers round as in `arithmetic`; in "float32" it is the network itself.

    The linear layer `exact` computes in float32, as in `adrbench.models.reduced`.
    """

    def __init__(
        self, network: nn.Module, arithmetic: Emulated, exact: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.exact = exact
        self.arithmetic: Emulated = arithmetic

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        if self.arithmetic == "float32":
            return self.network(x)  # type: ignore[no-any-return]
        with Rounding(self.arithmetic, self.exact):
            return self.network(x)  # type: ignore[no-any-return]
