"""A frozen copy of a model for attacks, with BatchNorm folded into convolutions.

An attack computes logits and gradients with respect to images thousands of times. The results of
the copy differ from those of the model only by float32 rounding.
"""

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.models.modes import in_mode
from adrbench.runtime.arithmetic import (
    FLOAT32,
    GRADIENT_TOLERANCES,
    TOLERANCES,
    Arithmetic,
)
from adrbench.runtime.devices import IMAGE_FORMAT

T = TypeVar("T")

#: The largest `relative_difference` of logits that folding may cause.
TOLERANCE = TOLERANCES["float32"]
#: The largest `gradient_difference` that folding may cause.
GRADIENT_TOLERANCE = GRADIENT_TOLERANCES["float32"]
#: How many images are compared, and how often, so that a randomized model is not copied.
COMPARED_IMAGES, COMPARISONS = 8, 3
#: Batches below this size are up to 10 % faster in plain NCHW on a CPU (2 cores, 2026).
SMALL_BATCH = 32
TIMED_IMAGES = 64


#: The name under which saved progress stores a memory format -> the format.
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A frozen model, whether BatchNorm was folded, and the name of its memory format.

    The name is "" for a model that could not be copied.
    """

    model: nn.Module
    folded: bool
    memory_format: str


def freeze(
    model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
) -> Frozen:
    """Return the fastest copy of `model` in eval mode without parameter gradients.

    BatchNorm is folded into the preceding convolutions if the model can be traced and the result
    has the model's logits and gradients on the first of the images `x` (N, C, H, W); otherwise it
    is kept. Convolutions use one of the memory `formats`: the fastest one on `x` if there are
    several. A model that cannot be copied, or whose logits vary between passes, is returned
    unchanged.
    """
    for make_copy in (fold_batch_norm, copy.deepcopy):
        copies = {}
        for memory_format in formats:
            try:
                frozen = make_copy(model).eval().requires_grad_(False)
                frozen = convert_conv2d_weight_memory_format(frozen, memory_format)
                if is_equivalent(model, frozen, x[:COMPARED_IMAGES]):
                    copies[memory_format] = frozen
            except Exception:  # copying and tracing run the model's code, which may raise anything
                break
        if copies:
            fastest = find_fastest(copies, x[:TIMED_IMAGES])
            (name,) = (name for name, value in FORMATS.items() if value == fastest)
            folded = make_copy is fold_batch_norm
            return Frozen(model=copies[fastest], folded=folded, memory_format=name)
    return Frozen(model=model, folded=False, memory_format="")


class ModelFreezer(Protocol):
    """What freezes the model of an evaluation."""

    def freeze(
        self, model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
    ) -> Frozen:
        """Return the frozen form of `model`, as the function `freeze` does."""


class Freezer:
    """Freezes a model once for several evaluations, between which it does not change."""

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._made_for: object = None
        self._frozen: Frozen | None = None

    def freeze(
        self, model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
    ) -> Frozen:
        """Return `freeze(model, x, formats)`, or that of the last call if it was the same one."""
        made_for = (x.shape, x.dtype, x.device, tuple(formats))
        if self._frozen is None or self._model is not model or self._made_for != made_for:
            self._frozen = freeze(model, x, formats)
            self._model, self._made_for = model, made_for
        return self._frozen


def formats_for(x: Tensor, arithmetic: Arithmetic = FLOAT32) -> tuple[torch.memory_format, ...]:
    """Return the memory formats to try for many passes over batches of the size of `x`.

    On a GPU, the faster format for passes in float32 depends on the kernels available without TF32;
    for others it is that of the tensor cores. On a CPU the format is fixed, so that repeated
    evaluations perform the same computation.
    """
    if x.is_cuda:
        return (IMAGE_FORMAT, torch.contiguous_format) if arithmetic == FLOAT32 else (IMAGE_FORMAT,)
    return (torch.contiguous_format if len(x) < SMALL_BATCH else IMAGE_FORMAT,)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of `model`, in eval mode, with BatchNorm folded into convolutions.

    Raises any exception from a model that cannot be traced, such as one that branches on values.
    """
    return fuse(fx.GraphModule(*trace(model)), inplace=True, no_trace=True).eval()


def trace(model: nn.Module) -> tuple[nn.Module, fx.Graph]:
    """Return a copy of `model` in eval mode, and the graph of its forward pass.

    Raises any exception from a model that cannot be traced.
    """
    tracer = _OneThreadTracer()
    graph = tracer.trace(copy.deepcopy(model).eval())
    return tracer.root, graph


class _OneThreadTracer(fx.Tracer):
    """Traces the modules that the current thread calls.

    While `torch.fx` traces, it intercepts the calls and attributes of every module in the process;
    those of other threads are passed through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Return the proxy of a call, or the result of the call in another thread."""
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Return the proxy of an attribute, or the attribute in another thread."""
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def is_equivalent(
    model: nn.Module, other: nn.Module, x: Tensor, comparisons: int = COMPARISONS
) -> bool:
    """Return whether two models in eval mode have the same logits and gradients on `x`.

    Logits are compared `comparisons` times, since those of a randomized model differ each time.
    Equal logits do not imply equal gradients: a trace drops custom backward passes and ignores
    `torch.no_grad`.
    """
    with in_mode(model, training=False), in_mode(other, training=False):
        logits, gradient = logits_and_gradient(model, x)
        other_logits, other_gradient = logits_and_gradient(other, x)
        if not gradient_difference(gradient, other_gradient) <= GRADIENT_TOLERANCE:
            return False
        return relative_difference(logits, other_logits) <= TOLERANCE and all(
            relative_difference(logits, logits_and_gradient(each, x)[0]) <= TOLERANCE
            for each in (model, other)
            for _ in range(1, comparisons)
        )


def logits_and_gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, num_classes), and the gradient of a fixed weighted sum of them.

    The gradient has the shape of `x`, (N, C, H, W).
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(logits.shape, generator=generator).to(logits)
        (gradient,) = torch.autograd.grad((weights * logits).sum(), x)
    return logits.detach(), gradient


def relative_difference(logits: Tensor, others: Tensor) -> float:
    """Return the largest absolute difference, divided by the largest |logit| if that is above 1."""
    logits, others = logits.detach(), others.detach()
    return float((logits - others).abs().max() / logits.abs().max().clamp_min(1))


def gradient_difference(gradient: Tensor, other: Tensor) -> float:
    """Return the L2 norm of the difference, divided by that of `gradient`; 0 if they are equal."""
    difference = (gradient - other).norm()
    return float(difference / gradient.norm()) if difference else 0.0


def find_fastest(models: Mapping[T, nn.Module], x: Tensor) -> T:
    """Return the key of the model that is fastest on images `x`; a single model is not run."""
    if len(models) == 1:
        return next(iter(models))
    return min(models, key=lambda key: measure_seconds(models[key], x))


def measure_seconds(model: nn.Module, x: Tensor) -> float:
    """Return the time of two forward passes and a gradient: the best of three after a warm-up."""
    samples = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.no_grad():
            model(x)
        _, gradient = logits_and_gradient(model, x)
        float(gradient.sum())  # waits for the device
        samples.append(time.perf_counter() - start)
    return min(samples[1:])
