"""Averaging of the weights over a run."""

import copy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Averaging(Protocol):
    """A running average of a model; `model` is None where there is none."""

    @property
    def model(self) -> nn.Module | None:
        """The averaged model, in eval mode."""

    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model` after an optimizer step."""


class NoAveraging:
    """No average."""

    model: None = None

    def update(self, model: nn.Module) -> None:
        """Do nothing."""


class EMA:
    """An exponential moving average of weights and BatchNorm statistics.

    average <- decay * average + (1 - decay) * model, over every floating-point entry of the
    state dict, from the initial weights on. Serves as ADR's teacher and as the "WA" model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights and statistics of `model`."""
        self._average(_floating(self.model), _floating(model), None)


def _floating(model: nn.Module) -> list[Tensor]:
    return [entry for entry in model.state_dict().values() if entry.is_floating_point()]
