"""What attack code makes a device do: kernels, and waits of the host, counted on a CPU."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
ALLOCATIONS = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty}
#: Operations whose result's value or shape the host must know.
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
#: What the official package makes on the CPU, also where the images are on a GPU.
MADE_ON_HOST = {aten.rand, aten.randn, aten.arange}


class DeviceWork(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the work of the code that runs inside it, without that of a `LinearUncounted`.

    `launches` are operations other than views and allocations. `waits` are the points at which the
    host waits for the device: it reads a value, or selects by a mask. `transfers` are tensors made
    on the CPU and copied to the device; those made by torch.zeros or torch.ones count as launches.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = self.waits = self.transfers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count an operation and run it."""
        packet = func.overloadpacket
        if packet in WAITS or (packet in INDEXED and any(map(_is_mask, args[1]))):
            self.waits += 1
        if packet in MADE_ON_HOST:
            self.transfers += 1
        elif not func.is_view and packet not in ALLOCATIONS:
            self.launches += 1
        return func(*args, **(kwargs or {}))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Launches, waits and transfers."""
        return self.launches, self.waits, self.transfers


def per_step(few: DeviceWork, many: DeviceWork, steps: int) -> tuple[float, ...]:
    """Return the launches, waits and transfers of one of the `steps` that `many` has more."""
    pairs: Iterable[tuple[int, int]] = zip(few.counts, many.counts, strict=True)
    return tuple((more - less) / steps for less, more in pairs)


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


class LinearUncounted(nn.Module):
    """Logits that are linear in the pixels; passes do not count as work of the attack.

    Class 0 leads by about `lead`.
    """

    def __init__(self, classes: int, pixels: int, lead: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(classes, pixels, generator=generator)
        self.bias = torch.linspace(0, -1, classes) - lead * (torch.arange(classes) > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        logits: Tensor = _Uncounted.apply(x, self.weight, self.bias)
        return logits


class _Uncounted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.weight, ctx.shape = weight, x.shape
        with _disable_current_modes():
            return x.flatten(1) @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        with _disable_current_modes():
            return (gradients[0] @ ctx.weight).view(ctx.shape), None, None
