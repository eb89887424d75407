"""From a configuration to the four slots of its method."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from adrbench.config import TrainConfig
from adrbench.methods.averaging import EMA, Averaging, NoAveraging
from adrbench.methods.objectives import (
    AdversarialTraining,
    Crafting,
    Objective,
    Standard,
    Start,
    Trades,
    nearby_start,
    uniform_start,
)
from adrbench.methods.perturbation import AWP, NoPerturbation, Perturbation
from adrbench.methods.targets import ADR, OneHot, Rectified, Targets


@dataclass(frozen=True, kw_only=True)
class Slots:
    """A method, ready to train with."""

    objective: Objective
    targets: Targets
    perturbation: Perturbation
    averaging: Averaging


def _crafting(config: TrainConfig, start: Start) -> Crafting:
    return Crafting(
        threat=config.threat_model(),
        steps=config.steps,
        alpha=config.alpha,
        start=start,
        mode=config.crafting_mode,
    )


def _standard(config: TrainConfig, noise: torch.Generator, start: Start | None) -> Objective:
    return Standard()


def _adversarial(config: TrainConfig, noise: torch.Generator, start: Start | None) -> Objective:
    start = start or uniform_start(config.threat_model(), noise)
    return AdversarialTraining(_crafting(config, start))


def _trades(config: TrainConfig, noise: torch.Generator, start: Start | None) -> Objective:
    return Trades(_crafting(config, start or nearby_start(noise)), beta=_set(config.beta))


#: objective token -> its builder.
OBJECTIVES: dict[str, Callable[[TrainConfig, torch.Generator, Start | None], Objective]] = {
    "standard": _standard,
    "at": _adversarial,
    "trades": _trades,
}


def build_method(
    config: TrainConfig,
    model: nn.Module,
    *,
    num_classes: int,
    total_steps: int,
    noise: torch.Generator,
    start: Start | None = None,
) -> Slots:
    """Fill the slots that `config.method` names, for one run of `total_steps` steps.

    `noise` is where random starts are drawn from; `start` replaces them, for a run whose starts
    were recorded elsewhere.
    """
    method = config.parsed_method()
    averaging = EMA(model, _set(config.ema_decay)) if method.averages else NoAveraging()
    targets: Targets = OneHot(num_classes)
    if method.adr:
        rectifier = ADR(
            total_steps=total_steps,
            temperature=(_set(config.temperature_high), _set(config.temperature_low)),
            interpolation=(_set(config.interpolation_low), _set(config.interpolation_high)),
        )
        assert averaging.model is not None
        targets = Rectified(rectifier, averaging.model)
    return Slots(
        objective=OBJECTIVES[method.objective](config, noise, start),
        targets=targets,
        perturbation=AWP(_set(config.awp_rho)) if method.awp else NoPerturbation(),
        averaging=averaging,
    )


def _set(value: float | None) -> float:
    """Return a setting that the configuration has checked to be there."""
    assert value is not None
    return value
