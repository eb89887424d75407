"""PGD adversarial training (Madry et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.config.components import NoSettings
from adrbench.config.threat import ThreatModel
from adrbench.methods.inner_attack import InnerAttack, Start, build_inner_attack
from adrbench.methods.losses import cross_entropy
from adrbench.methods.slots import BuildContext
from adrbench.results.history import Criterion


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross-entropy on PGD examples (Madry et al. 2018, equation 2.1)."""

    inner_attack: InnerAttack
    criterion: Criterion = "robust"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the initial noise, shaped like `x`."""
        return self.inner_attack.start.draw(x, generator)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Maximize the cross-entropy against `targets`, which may be soft."""
        return self.inner_attack.maximize(
            model, x, noise, lambda x_adv: cross_entropy(model(x_adv), targets)
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy on `x_adv`."""
        return cross_entropy(model(x_adv), targets)


def uniform_start(threat: ThreatModel) -> Start:
    """Return the start of PGD training: uniform in the ball, clipped to [0, 1]."""
    return Start(draw=threat.draw, begin=lambda x, noise: (x + noise).clamp(0, 1))


def build(context: BuildContext, settings: NoSettings) -> AdversarialTraining:
    """Return the objective."""
    return AdversarialTraining(build_inner_attack(context, uniform_start(context.threat_model)))
