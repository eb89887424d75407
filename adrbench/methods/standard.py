"""Standard training: no attack."""

import torch
from torch import Tensor, nn

from adrbench.config.components import NoSettings
from adrbench.methods.losses import cross_entropy
from adrbench.methods.slots import BuildContext
from adrbench.results.history import Criterion


class Standard:
    """Cross-entropy on clean images."""

    criterion: Criterion = "clean"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return an empty tensor, since there is no attack."""
        return x.new_empty(0)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Return `x` unchanged."""
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy on `x`."""
        return cross_entropy(model(x), targets)


def build(context: BuildContext, settings: NoSettings) -> Standard:
    """Return the objective."""
    return Standard()
