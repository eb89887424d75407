"""The exponential moving average of the weights: ADR's teacher, and the "WA" model."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from adrbench.config.components import EMASettings
from adrbench.methods.slots import BuildContext


class EMA:
    """An exponential moving average of weights and BatchNorm statistics.

    average <- decay * average + (1 - decay) * model, over every floating-point entry of the
    state dict, from the initial weights on. `model` is the averaged model, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights and statistics of `model` to the average."""
        self._average(_floating(self.model), _floating(model), None)


def _floating(model: nn.Module) -> list[Tensor]:
    """Return the floating-point entries of the state dict, weights that layers share once."""
    entries = model.state_dict(keep_vars=True).values()
    tensors = (entry for entry in entries if isinstance(entry, Tensor))
    unique = {id(entry): entry for entry in tensors if entry.is_floating_point()}
    return [entry.detach() for entry in unique.values()]


def build(context: BuildContext, settings: EMASettings) -> EMA:
    """Return the averaging."""
    return EMA(context.model, settings.ema_decay)
