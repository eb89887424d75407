"""From a configuration to the four slots of its method."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from adrbench.config.settings import TrainConfig
from adrbench.methods.adr import ADR, OneHot, Rectified, Targets
from adrbench.methods.awp import AWP, NoPerturbation, Perturbation
from adrbench.methods.ema import EMA, Averaging, NoAveraging
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
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup


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


def _standard(config: TrainConfig) -> Objective:
    return Standard()


def _adversarial(config: TrainConfig) -> Objective:
    return AdversarialTraining(_crafting(config, uniform_start(config.threat_model())))


def _trades(config: TrainConfig) -> Objective:
    return Trades(_crafting(config, nearby_start()), beta=_set(config.beta))


#: objective token -> its builder.
OBJECTIVES: dict[str, Callable[[TrainConfig], Objective]] = {
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
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Slots:
    """Fill the slots that `config.method` names, for one run of `total_steps` steps."""
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
        objective=OBJECTIVES[method.objective](config),
        targets=targets,
        perturbation=(
            AWP(_set(config.awp_rho), process_group)
            if method.awp
            else NoPerturbation(process_group)
        ),
        averaging=averaging,
    )


def _set(value: float | None) -> float:
    """Return a setting that the configuration has checked to be there."""
    assert value is not None
    return value
