"""The four slots of a method: the protocol of each, and its default when empty.

An objective crafts examples and computes the loss; targets are the labels that the loss uses; a
perturbation determines the weights at which gradients are taken; an averaging maintains an average
of the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.components import Slot
from adrbench.config.settings import TrainConfig
from adrbench.config.threat import ThreatModel
from adrbench.results.history import Criterion
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

#: What changes from step to step, by name: numbers, or 0-dimensional tensors that hold them.
Values = Mapping[str, float | Tensor]


@runtime_checkable
class Objective(Protocol):
    """The inner maximization and the loss of a step; `criterion` selects the best epoch."""

    @property
    def criterion(self) -> Criterion:
        """The accuracy that this objective aims to increase."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the noise with which crafting starts on images like `x` (N, C, H, W)."""

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Return the images to train on, crafted from `x` (N, C, H, W) in [0, 1]."""

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss for `targets` (N, C), probabilities."""


@runtime_checkable
class Targets(Protocol):
    """Rows of probabilities for a batch."""

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return (N, C) probabilities for images (N, C, H, W) with labels (N,).

        `values` contains at least the names that `annealed` returns.
        """

    def annealed(self, step: int) -> dict[str, float]:
        """Return the annealed values by name at an optimization step, counted from 0."""


@runtime_checkable
class Perturbation(Protocol):
    """How gradients are taken."""

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Write the gradients to step with to `.grad`; return the loss at the current weights.

        `closure` runs the forward pass and returns the scalar loss. Both are means over the
        ranks that share a batch.
        """


@runtime_checkable
class Averaging(Protocol):
    """A running average of a model; `model` is None where there is none."""

    @property
    def model(self) -> nn.Module | None:
        """The averaged model, in eval mode."""

    def update(self, model: nn.Module) -> None:
        """Add the weights of `model` to the average after an optimizer step."""


#: What a component must build, by its slot.
PROTOCOLS: Mapping[Slot, type] = {
    "objective": Objective,
    "targets": Targets,
    "averaging": Averaging,
    "perturbation": Perturbation,
}


class OneHot:
    """The one-hot labels: the targets of a method that specifies none."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return one-hot rows of the images' type."""
        return F.one_hot(y, self.num_classes).to(torch.promote_types(x.dtype, torch.float32))

    def annealed(self, step: int) -> dict[str, float]:
        """Return no values, since the labels do not change."""
        return {}


@dataclass(frozen=True)
class NoPerturbation:
    """A plain backward pass."""

    process_group: ProcessGroup = SINGLE_PROCESS

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Compute the gradients at the current weights."""
        model.zero_grad()
        loss = closure()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.process_group.all_reduce_mean([loss, *gradients])
        return loss


class NoAveraging:
    """No average."""

    model: None = None

    def update(self, model: nn.Module) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """A method, ready to train with."""

    objective: Objective
    targets: Targets
    perturbation: Perturbation
    averaging: Averaging


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """The information available to a component's builder.

    `model` is the student at its initial weights, `average` the averaged model where the method
    has one and it is built already: averaging comes first. `total_steps` counts the whole run.
    """

    config: TrainConfig
    model: nn.Module
    num_classes: int
    total_steps: int
    process_group: ProcessGroup
    average: nn.Module | None = None

    @property
    def threat_model(self) -> ThreatModel:
        """The threat model trained against."""
        return self.config.threat_model()
