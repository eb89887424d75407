"""Objectives: how training examples are crafted, and the loss on them.

Targets are always probabilities, (N, C); labels come in as one-hot rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.pgd import ascend
from adrbench.config.settings import BatchNormMode
from adrbench.config.threat import ThreatModel
from adrbench.models.modes import in_mode, without_parameter_gradients

#: The width of the uniform noise at which the published TRADES code starts its attack.
TRADES_NOISE = 0.001


#: Which accuracy says that one epoch is better than another; the other breaks ties.
Criterion = Literal["robust", "clean"]


class Objective(Protocol):
    """What a step minimises, and the `criterion` by which its epochs are compared."""

    @property
    def criterion(self) -> Criterion:
        """The accuracy this objective is after."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the noise that crafting on images like `x` (N, C, H, W) takes."""

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Return the images to train on beside `x` (N, C, H, W) in [0, 1]."""

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss for `targets` (N, C), probabilities."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an attack starts: noise drawn for images, and how it is laid on them.

    `draw(x, generator)` returns noise shaped as `x` (N, C, H, W), `begin(x, noise)` the start.
    """

    draw: Callable[[Tensor, torch.Generator], Tensor]
    begin: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Crafting:
    """The inner attack of an adversarial objective.

    `mode` is the mode of the model's BatchNorm meanwhile; in "train", as in the published code,
    every pass uses batch statistics and moves the running ones.
    """

    threat: ThreatModel
    steps: int
    alpha: float
    start: Start
    mode: BatchNormMode = "train"

    def climb(
        self, model: nn.Module, x: Tensor, noise: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return images in the ball around `x` that climb `loss`, a function of images."""
        start = self.start.begin(x, noise)
        with self.still(model):
            return ascend(self.threat, x, start, loss, steps=self.steps, alpha=self.alpha)

    @contextmanager
    def still(self, model: nn.Module) -> Iterator[None]:
        """Hold the model in the mode of crafting, its parameters out of the gradient."""
        training = self.mode == "train"
        with in_mode(model, training=training), without_parameter_gradients(model):
            yield


class Standard:
    """Cross-entropy on clean images."""

    criterion: Criterion = "clean"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return nothing: no noise is taken."""
        return x.new_empty(0)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Return `x` itself."""
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy on `x`."""
        return cross_entropy(model(x), targets)


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross-entropy on PGD examples (Madry et al. 2018, equation 2.1)."""

    crafting: Crafting
    criterion: Criterion = "robust"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noise of the start, shaped as `x`."""
        return self.crafting.start.draw(x, generator)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Climb the cross-entropy against `targets`, soft where they are soft."""
        return self.crafting.climb(
            model, x, noise, lambda x_adv: cross_entropy(model(x_adv), targets)
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy on `x_adv`."""
        return cross_entropy(model(x_adv), targets)


@dataclass(frozen=True)
class Trades:
    """Clean cross-entropy and a consistency term (Zhang et al. 2019, equation 5).

    Both terms come from one pass over the concatenated batch, and the clean side of the
    consistency term keeps its gradient, as in the published ADR code.
    """

    crafting: Crafting
    beta: float
    criterion: Criterion = "robust"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noise of the start, shaped as `x`."""
        return self.crafting.start.draw(x, generator)

    def craft(self, model: nn.Module, x: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Climb KL(clean || adversarial), which looks at no label."""
        with torch.no_grad(), self.crafting.still(model):
            clean = log_softmax(model(x))
        return self.crafting.climb(
            model, x, noise, lambda x_adv: divergence(clean, log_softmax(model(x_adv)))
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return CE(f(x), targets) + beta KL(f(x) || f(x_adv))."""
        clean, adversarial = model(torch.cat([x, x_adv])).chunk(2)
        consistency = divergence(log_softmax(clean), log_softmax(adversarial))
        return cross_entropy(clean, targets) + self.beta * consistency


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities in at least float32, whatever the precision of the pass."""
    return F.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of `logits` (N, C) against probabilities (N, C)."""
    return -(targets * log_softmax(logits)).sum(1).mean()


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the batch mean of KL(p || q), both given as log-probabilities (N, C)."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def uniform_start(threat: ThreatModel) -> Start:
    """Return the start of PGD training: uniform in the ball, clipped to [0, 1]."""
    return Start(draw=threat.draw, begin=lambda x, noise: (x + noise).clamp(0, 1))


def nearby_start() -> Start:
    """Return the start of TRADES: a thousandth of uniform noise on top of the image."""

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(x, memory_format=torch.contiguous_format)
        return TRADES_NOISE * noise.uniform_(generator=generator)

    return Start(draw=draw, begin=torch.add)
