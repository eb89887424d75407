"""One training step as the method reads, and how a run takes it on its device."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.methods.slots import Slots, Values
from adrbench.models.modes import running_statistics
from adrbench.runtime import seeds
from adrbench.runtime.cuda_graphs import GraphedCall, Inputs
from adrbench.runtime.devices import IMAGE_FORMAT, full_precision
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup
from adrbench.training.state import Run


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step made on the way: `loss` a scalar, `targets` (N, C), `x_adv` as `x`."""

    loss: Tensor
    targets: Tensor
    x_adv: Tensor


def train_step(
    model: nn.Module,
    slots: Slots,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    noise: Tensor,
    values: Values,
    arithmetic: AbstractContextManager[Any] | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> StepResult:
    """Take one optimisation step on images `x` (N, C, H, W) of labels `y` (N,).

    `noise` is what the objective drew for `x`; `values` has the learning rate, as "lr", and what
    the targets anneal. The passes run under `arithmetic`, the optimizer and the average in full
    precision. Nothing here waits for the device. Where the loss is not finite, a fused optimizer
    leaves the parameters as they are; BatchNorm's statistics and the average have taken it in, so
    a caller who learns it from the result should go no further.

    Each rank of `process_group` has its share of the batch. Gradients are averaged where they are
    taken (see `Perturbation`), BatchNorm's statistics here, so that models and averages
    are the same everywhere.
    """
    with arithmetic or nullcontext():
        targets = slots.targets(x, y, values)
        x_adv = slots.objective.craft(model, x, targets, noise)
        loss = slots.perturbation.backward(
            model, lambda: slots.objective.loss(model, x, x_adv, targets)
        )
    for group in optimizer.param_groups:
        group["lr"] = values["lr"]
    # What gradient scalers tell a fused optimizer: 1 where it has to skip the step.
    optimizer.found_inf = loss.isfinite().logical_not().float()  # type: ignore[attr-defined]
    optimizer.step()
    if statistics := running_statistics(model):
        process_group.all_reduce_mean(statistics)
    slots.averaging.update(model)
    return StepResult(loss=loss, targets=targets, x_adv=x_adv)


class Stepper:
    """Takes the steps of a run: on a GPU as one CUDA graph, captured once for the whole run.

    With several ranks it runs kernel by kernel, with
    communication in between.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        work = partial(take_step, run)
        is_graph = run.device.type == "cuda" and run.process_group.size == 1
        self.take = GraphedCall(work, run.device) if is_graph else work

    def __call__(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Take step number `step` on our share of its batch; return its loss, on the device."""
        run = self.run
        run.noise.manual_seed(seeds.derive_seed(run.config.seed, "noise", step))
        return self.take(
            {
                "x": x.contiguous(memory_format=IMAGE_FORMAT),
                "y": y,
                "noise": self._draw(x),
                **run.scheduled(step),
            }
        )

    def _draw(self, x: Tensor) -> Tensor:
        """Return our share of the noise of the whole batch, whoever else works on it."""
        process_group = self.run.process_group
        whole = x if process_group.size == 1 else x.repeat(process_group.size, 1, 1, 1)
        noise = self.run.slots.objective.draw(whole, self.run.noise)
        return noise[process_group.rank * len(x) :][: len(x)]


#: The inputs of a step that are not scheduled numbers.
BATCH = ("x", "y", "noise")


def take_step(run: Run, inputs: Inputs) -> Tensor:
    """Take the step that `inputs` make up: x, y, noise, and the scheduled numbers."""
    batch: Mapping[str, Any] = inputs
    return train_step(
        run.model,
        run.slots,
        run.optimizer,
        batch["x"],
        batch["y"],
        noise=batch["noise"],
        values={name: value for name, value in inputs.items() if name not in BATCH},
        arithmetic=arithmetic(run),
        process_group=run.process_group,
    ).loss


def arithmetic(run: Run) -> AbstractContextManager[Any]:
    """Return what a step runs under: float32 without TF32, or bfloat16 with float32 weights.

    The cache of converted weights is off because AWP changes the weights within a step.
    """
    if run.config.precision == "float32":
        return full_precision()
    return torch.autocast(run.device.type, dtype=torch.bfloat16, cache_enabled=False)
