"""The inner maximization of adversarial objectives: PGD on the training loss."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.pgd import ascend
from adrbench.config.settings import BatchNormMode
from adrbench.config.threat import ThreatModel
from adrbench.methods.slots import BuildContext
from adrbench.models.modes import in_mode, without_parameter_gradients


@dataclass(frozen=True, kw_only=True)
class Start:
    """The starting point of the inner attack.

    `draw(x, generator)` returns noise shaped like `x` (N, C, H, W), `begin(x, noise)` the start.
    """

    draw: Callable[[Tensor, torch.Generator], Tensor]
    begin: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class InnerAttack:
    """PGD within `threat`: `steps` steps of `alpha` from `start`.

    `mode` is the mode of the model's BatchNorm during the attack; in "train", as in the published
    code, every pass uses batch statistics and updates the running ones.
    """

    threat: ThreatModel
    steps: int
    alpha: float
    start: Start
    mode: BatchNormMode = "train"

    def maximize(
        self, model: nn.Module, x: Tensor, noise: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return images in the ball around `x` that maximize `loss`, a function of images."""
        start = self.start.begin(x, noise)
        with self.attacked(model):
            return ascend(self.threat, x, start, loss, steps=self.steps, alpha=self.alpha)

    @contextmanager
    def attacked(self, model: nn.Module) -> Iterator[None]:
        """Put the model in the mode of the attack, without parameter gradients."""
        training = self.mode == "train"
        with in_mode(model, training=training), without_parameter_gradients(model):
            yield


def build_inner_attack(context: BuildContext, start: Start) -> InnerAttack:
    """Return the inner attack of a run."""
    config = context.config
    return InnerAttack(
        threat=context.threat_model,
        steps=config.steps,
        alpha=config.alpha,
        start=start,
        mode=config.crafting_mode,
    )
