"""The settings of a run that are "auto": decided once, stored, and kept when it is resumed."""

import torch

from adrbench.config.settings import TrainConfig
from adrbench.runtime.arithmetic import AUTO, choose_for_training


def adopt(config: TrainConfig, stored: TrainConfig) -> TrainConfig:
    """Return `config` with what is "auto" as in the `stored` settings of the run it resumes."""
    values, declared = config.values(), config.declared()
    undecided = [name for name in values if name in declared and declared[name].is_automatic]
    kept = {name: getattr(stored, name) for name in undecided if values[name] == AUTO}
    return config.with_settings(**kept)


def decide(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return `config` with what is "auto" decided for a run on `device`.

    Raises:
        UsageError: for a setting that the device does not support.

    """
    return config.with_settings(precision=choose_for_training(config.precision, device))
