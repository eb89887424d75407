"""The exponential moving average of the weights: ADR's teacher, and the "WA" model."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from adrbench.config.components import EMASettings
from adrbench.config.declare import is_number
from adrbench.errors import UsageError
from adrbench.methods.slots import BuildContext
from adrbench.registry import describe_exception


class EMA:
    """An exponential moving average of weights and BatchNorm statistics.

    average <- decay * average + (1 - decay) * model, over every floating-point entry of the
    state dict, from the initial weights on. Other entries, such as counters, keep their initial
    values. `model` is the averaged model, in eval mode and on the device where the model was.

    Raises:
        UsageError: for a decay outside [0, 1], a model that cannot be copied or whose lazy
            parameters have no shape yet; from `update`, for a model with other weights.

    Example:
        >>> from torch import nn
        >>> from adrbench import EMA
        >>> model = nn.Linear(2, 1)
        >>> average = EMA(model, decay=0.995)
        >>> average.update(model)  # after each optimizer step
        >>> average.model.training
        False

    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        _check_module(model)
        if not is_number(decay) or not 0 <= decay <= 1:
            raise UsageError(f"decay is {decay!r:.40}: give a number from 0 to 1, such as 0.995.")
        try:
            self.model: nn.Module = copy.deepcopy(model).eval().requires_grad_(False)
        except Exception as error:  # copying runs the code of the model
            raise UsageError(
                f"the model cannot be copied (copy.deepcopy raised {describe_exception(error)}), "
                "which an EMA requires: make it support copy.deepcopy."
            ) from error
        self.decay = float(decay)
        self._average = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"EMA({type(self.model).__name__}, decay={self.decay})"

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights and statistics of `model` to the average, without waiting for a GPU."""
        average, current = _floating(self.model), _floating(model)
        _check_same_weights(average, current)
        self._average(list(average.values()), list(current.values()), None)


def _check_module(model: object) -> None:
    """Raise UsageError unless `model` is a module whose weights have shapes."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: pass an nn.Module.")
    for name, value in model.state_dict(keep_vars=True).items():
        if is_lazy(value):
            raise UsageError(
                f"{name} has no shape yet, because its layer is lazy: pass a batch through the "
                "model before you create its EMA."
            )


def _floating(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point entries of the state dict, weights that layers share once."""
    entries = model.state_dict(keep_vars=True).items()
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, entry in entries:
        if isinstance(entry, Tensor) and entry.is_floating_point():
            unique.setdefault(id(entry), (name, entry.detach()))
    return dict(unique.values())


def _check_same_weights(average: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> None:
    """Raise UsageError unless both are the weights of one architecture, on one device.

    The names of a wrapped model, such as DistributedDataParallel, have a prefix.
    """
    if len(average) != len(current):
        raise UsageError(
            f"the model has {len(current)} floating-point weights and statistics, but the average "
            f"has {len(average)}: update it with the model that it was created from."
        )
    for (name, mean), (other, value) in zip(average.items(), current.items(), strict=True):
        if mean.shape != value.shape or not (name.endswith(other) or other.endswith(name)):
            raise UsageError(
                f"the model has {other} of shape {tuple(value.shape)} where the average has {name} "
                f"of shape {tuple(mean.shape)}: update it with the model that it was created from."
            )
        if mean.device != value.device or mean.dtype != value.dtype:
            raise UsageError(
                f"{other} is {value.dtype} on {value.device}, but {mean.dtype} on {mean.device} in "
                "the average: create the EMA after moving or converting the model, or move "
                "`average.model` as well."
            )


def build(context: BuildContext, settings: EMASettings) -> EMA:
    """Return the averaging."""
    return EMA(context.model, settings.ema_decay)
