"""The optimizer of a run, and saving and restoring its momentum."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adrbench.config.settings import TrainConfig

MOMENTUM = "momentum_buffer"


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with weight decay on every parameter, as in the published code."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def read_momentum(optimizer: torch.optim.Optimizer) -> list[Tensor | None]:
    """Return the momentum of each parameter, None where it has none (yet)."""
    (group,) = optimizer.param_groups
    return [optimizer.state[parameter].get(MOMENTUM) for parameter in group["params"]]


def load_momentum(optimizer: torch.optim.Optimizer, saved: Sequence[object]) -> None:
    """Load what `read_momentum` returned, in the memory format of each parameter.

    The settings of the optimizer stay as they are.

    Raises:
        TypeError, ValueError: if it does not fit the parameters.

    """
    (group,) = optimizer.param_groups
    parameters = group["params"]
    if len(saved) != len(parameters):
        raise ValueError(f"it should have the momentum of {len(parameters)} parameters")
    for index, (parameter, momentum) in enumerate(zip(parameters, saved, strict=True)):
        if momentum is None:
            continue
        if not isinstance(momentum, Tensor) or not is_like(momentum, parameter):
            raise ValueError(f"the momentum of parameter {index} should be like the parameter")
        if not bool(momentum.isfinite().all()):
            raise ValueError(f"the momentum of parameter {index} is not finite")
        # Fused SGD on a CPU assumes the memory format of the parameter.
        optimizer.state[parameter][MOMENTUM] = torch.empty_like(parameter).copy_(momentum)


def is_like(tensor: Tensor, parameter: Tensor) -> bool:
    """Return whether a tensor has the shape and type of a parameter."""
    return (tensor.shape, tensor.dtype) == (parameter.shape, parameter.dtype)
