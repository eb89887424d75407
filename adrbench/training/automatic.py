"""The settings of a run that are "auto": decided once, stored, and kept when it is resumed."""

from pathlib import Path

import torch

from adrbench.config.settings import Compile, TrainConfig
from adrbench.errors import UsageError, argument
from adrbench.runtime.arithmetic import AUTO, choose_for_training

#: Steps of a run from which on compiling saves time. It takes about 50 s, which a ResNet-18 at
#: batch 128 saves in 11,700 steps (4,556 against 5,589 images/s on an H200, PyTorch 2.11).
WORTH_COMPILING = 15_000


def adopt(config: TrainConfig, stored: TrainConfig) -> TrainConfig:
    """Return `config` with what is "auto" as in the `stored` settings of the run it resumes."""
    values, declared = config.values(), config.declared()
    undecided = [name for name in values if name in declared and declared[name].is_automatic]
    kept = {name: getattr(stored, name) for name in undecided if values[name] == AUTO}
    return config.with_settings(**kept)


def check_resumable(config: TrainConfig, device: torch.device, directory: Path) -> None:
    """Raise UsageError if `device` lacks what the run in `directory` was begun with."""
    try:
        choose_for_training(config.precision, device)
    except UsageError:
        raise UsageError(
            f"the run in {directory} trains in {config.precision}, which {device} does not have: "
            f"resume it on a GPU that has it, or give {argument('force', True)} to start over."
        ) from None


def decide(
    config: TrainConfig, device: torch.device, *, steps_per_epoch: int, processes: int
) -> TrainConfig:
    """Return `config` with what is "auto" decided for a run on `device`.

    Raises:
        UsageError: for a setting that the device does not support.

    """
    return config.with_settings(
        precision=choose_for_training(config.precision, device),
        compile=choose_compilation(
            config.compile,
            device,
            total_steps=config.epochs * steps_per_epoch,
            processes=processes,
        ),
    )


def choose_compilation(
    choice: Compile, device: torch.device, *, total_steps: int, processes: int
) -> Compile:
    """Return "on" or "off": for "auto", "on" where compiling takes less time than it saves."""
    if choice != AUTO:
        return choice
    pays_off = device.type == "cuda" and processes == 1 and total_steps >= WORTH_COMPILING
    return "on" if pays_off else "off"
