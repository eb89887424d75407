"""The form of a model that attacks run on: frozen, with BatchNorm folded into convolutions.

An attack asks for logits and for gradients of images, thousands of times. Nothing here changes
the answers beyond the rounding of float32.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.models.modes import in_mode
from adrbench.runtime.devices import IMAGE_FORMAT

T = TypeVar("T")

#: The largest difference that folding may make to a logit, relative to the largest above 1.
TOLERANCE = 1e-4
#: The largest that it may make to the gradient of the images, relative to it (L2). Rounding makes
#: about 1e-6, and more where it takes an activation over the kink of a ReLU.
GRADIENT_TOLERANCE = 1e-2
#: How many images are compared, and how often: a random model would have to agree every time.
COMPARED_IMAGES, COMPARISONS = 8, 3
#: Batches below this size are faster as plain NCHW on a CPU, by up to a tenth (2 cores, 2026).
SMALL_BATCH = 32
TIMED_IMAGES = 64


#: memory format -> its name where it is kept.
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A frozen model, whether BatchNorm was folded away, and the name of its memory format.

    A model that could not be copied has "" there.
    """

    model: nn.Module
    folded: bool
    memory_format: str


def freeze(
    model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
) -> Frozen:
    """Return a copy of `model` in eval mode, without parameter gradients, as fast as it can be.

    BatchNorm is folded into the convolutions before it wherever the model can be traced and the
    result has the model's logits and gradients on the first of the images `x` (N, C, H, W); else
    it stays. Convolutions work in one of the memory `formats`; of several, in the one that is
    fastest on `x`. A model that cannot be copied, or answers differently each time, comes back
    itself.
    """
    for change in (fold, copy.deepcopy):
        forms = {}
        for memory_format in formats:
            try:
                form = change(model).eval().requires_grad_(False)
                form = convert_conv2d_weight_memory_format(form, memory_format)
                if agree(model, form, x[:COMPARED_IMAGES]):
                    forms[memory_format] = form
            except Exception:  # copying and tracing run the model's own code, even on symbols
                break
        if forms:
            chosen = fastest(forms, x[:TIMED_IMAGES])
            (name,) = (name for name, value in FORMATS.items() if value == chosen)
            return Frozen(model=forms[chosen], folded=change is fold, memory_format=name)
    return Frozen(model=model, folded=False, memory_format="")


def formats_for(x: Tensor) -> tuple[torch.memory_format, ...]:
    """Return the memory formats to try for many passes over batches like `x`.

    On a GPU it depends on the kernels there are without TF32. On a CPU there is one answer, so that
    the same evaluation is the same computation every time.
    """
    if x.is_cuda:
        return (IMAGE_FORMAT, torch.contiguous_format)
    return (torch.contiguous_format if len(x) < SMALL_BATCH else IMAGE_FORMAT,)


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of `model`, in eval mode, with BatchNorm folded into convolutions.

    Raises whatever comes of tracing a model that cannot be traced, as one that branches on values.
    """
    return fuse(copy.deepcopy(model).eval(), inplace=True).eval()


def agree(model: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Tell whether two models in eval mode have the same logits and gradients on `x`.

    Gradients count by themselves: a trace has not those that a model defines, nor leaves out those
    that it withholds.
    """
    with in_mode(model, training=False), in_mode(other, training=False):
        expected, found = (answer(each, x) for each in (model, other))
        if not (expected[1] - found[1]).norm() <= GRADIENT_TOLERANCE * expected[1].norm():
            return False
        return difference(expected[0], found[0]) <= TOLERANCE and all(
            difference(expected[0], answer(each, x)[0]) <= TOLERANCE
            for each in (model, other)
            for _ in range(1, COMPARISONS)
        )


def answer(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, num_classes), and the gradient of a fixed mixture of them, as `x`."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits: Tensor = model(x)
        draws = torch.Generator().manual_seed(0)
        mixture = torch.randn(logits.shape, generator=draws).to(logits)
        (gradient,) = torch.autograd.grad((mixture * logits).sum(), x)
    return logits.detach(), gradient


def difference(logits: Tensor, others: Tensor) -> float:
    """Return the largest difference, relative to the largest of `logits` where that is above 1."""
    logits, others = logits.detach(), others.detach()
    return float((logits - others).abs().max() / logits.abs().max().clamp_min(1))


def fastest(models: Mapping[T, nn.Module], x: Tensor) -> T:
    """Return whose model takes the least time on images `x`; a single one is not run."""
    if len(models) == 1:
        return next(iter(models))
    return min(models, key=lambda name: seconds(models[name], x))


def seconds(model: nn.Module, x: Tensor) -> float:
    """Return the least seconds, of three times after one, for two forward passes and a gradient."""
    samples = []
    for _ in range(4):
        began = time.perf_counter()
        with torch.no_grad():
            model(x)
        _, gradient = answer(model, x)
        float(gradient.sum())  # waits for the device
        samples.append(time.perf_counter() - began)
    return min(samples[1:])
