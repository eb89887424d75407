"""The form of a model that attacks run on: frozen, with BatchNorm folded into convolutions.

An attack asks for logits and for gradients of images, thousands of times. Nothing here changes
the answers beyond the rounding of float32.
"""

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.devices import IMAGE_FORMAT
from adrbench.models.modes import in_mode

#: The largest difference that folding may make to a logit, relative to the largest above 1.
TOLERANCE = 1e-4


def freeze(
    model: nn.Module, x: Tensor, *, memory_format: torch.memory_format = IMAGE_FORMAT
) -> nn.Module:
    """Return a copy of `model` in eval mode, without parameter gradients, as fast as it can be.

    BatchNorm is folded into the convolutions before it wherever the model can be traced and the
    result agrees with the model on the images `x` (N, C, H, W); else it stays. Convolutions work
    in `memory_format`.
    """
    folded = fold(model)
    if folded is None or not agree(model, folded, x):
        folded = copy.deepcopy(model).eval()
    return convert_conv2d_weight_memory_format(folded.requires_grad_(False), memory_format)


def fold(model: nn.Module) -> nn.Module | None:
    """Return a copy of `model`, in eval mode, with BatchNorm folded into convolutions.

    None where the model cannot be traced, as one that branches on what it computes.
    """
    try:
        return fuse(copy.deepcopy(model).eval(), inplace=True).eval()
    except Exception:  # tracing runs the model's own code on symbols, which may raise anything
        return None


def difference(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Return the largest difference of a logit on images `x` (N, C, H, W), in eval mode.

    It is relative to the largest logit where that is above 1.
    """
    with torch.no_grad(), in_mode(model, training=False), in_mode(other, training=False):
        expected, logits = model(x), other(x)
    return float((logits - expected).abs().max() / expected.abs().max().clamp_min(1))


def agree(model: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Tell whether two models give the same logits on `x` but for rounding."""
    try:
        return difference(model, other, x) <= TOLERANCE
    except RuntimeError:  # of a trace that was right for other shapes or devices only
        return False
