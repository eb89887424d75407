"""TRADES (Zhang et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.config.components import TradesSettings
from adrbench.methods.inner_attack import InnerAttack, Start, build_inner_attack
from adrbench.methods.losses import cross_entropy, divergence, log_softmax
from adrbench.methods.slots import BuildContext
from adrbench.results.history import Criterion

#: The width of the uniform noise with which the published code starts its attack.
START_NOISE = 0.001


@dataclass(frozen=True)
class Trades:
    """Clean cross-entropy and a consistency term (Zhang et al. 2019, equation 5).

    Both terms come from one pass over the concatenated batch, and the clean side of the
    consistency term keeps its gradient, as in the published ADR code.
    """

    inner_attack: InnerAttack
    beta: float
    criterion: Criterion = "robust"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the initial noise, shaped like `x`."""
        return self.inner_attack.start.draw(x, generator)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Maximize KL(clean || adversarial), which does not depend on the labels."""
        with torch.no_grad(), self.inner_attack.attacked(model):
            clean = log_softmax(model(x))
        return self.inner_attack.maximize(
            model, x, noise, lambda x_adv: divergence(clean, log_softmax(model(x_adv)))
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return CE(f(x), targets) + beta KL(f(x) || f(x_adv))."""
        clean, adversarial = model(torch.cat([x, x_adv])).chunk(2)
        consistency = divergence(log_softmax(clean), log_softmax(adversarial))
        return cross_entropy(clean, targets) + self.beta * consistency


def nearby_start() -> Start:
    """Return the start of TRADES: the image plus START_NOISE times uniform noise in [0, 1)."""

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(x, memory_format=torch.contiguous_format)
        return START_NOISE * noise.uniform_(generator=generator)

    return Start(draw=draw, begin=torch.add)


def build(context: BuildContext, settings: TradesSettings) -> Trades:
    """Return the objective."""
    return Trades(build_inner_attack(context, nearby_start()), beta=settings.beta)
