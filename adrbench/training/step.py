"""One training step, written like the method, and how a run executes it on its device."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.methods.slots import Slots, Values
from adrbench.models.modes import running_statistics
from adrbench.runtime import seeds
from adrbench.runtime.arithmetic import computing_in
from adrbench.runtime.cuda_graphs import GraphedCall, Inputs
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup
from adrbench.training.compiled_step import CompiledStep
from adrbench.training.state import Run, TrainState


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The results of one step: `loss` a scalar, `targets` (N, C), `x_adv` shaped like `x`."""

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
    """Take one optimization step on images `x` (N, C, H, W) with labels `y` (N,).

    `noise` was drawn by the objective for `x`; `values` contains the learning rate, as "lr", and
    the annealed values of the targets. The passes run under `arithmetic`, the optimizer and the
    average in full precision. Nothing here synchronizes with the device. If the loss is not finite,
    the parameters are not updated, but BatchNorm statistics and the average are: the caller must
    stop.

    Each rank of `process_group` has its share of the batch. Gradients are averaged over the ranks
    by the perturbation, BatchNorm statistics here, so that all ranks keep the same models.
    """
    with arithmetic or nullcontext():
        result = run_passes(model, slots, x, y, noise=noise, values=values)
    update_parameters(optimizer, lr=values["lr"], loss=result.loss)
    if statistics := running_statistics(model):
        process_group.all_reduce_mean(statistics)
    slots.averaging.update(model)
    return result


def run_passes(
    model: nn.Module, slots: Slots, x: Tensor, y: Tensor, *, noise: Tensor, values: Values
) -> StepResult:
    """Run the forward and backward passes of a step, which leave the gradients in `.grad`.

    The arguments are those of `train_step`. BatchNorm statistics change, parameters do not.
    """
    targets = slots.targets(x, y, values)  # (N, C)
    x_adv = slots.objective.craft(model, x, targets, noise)  # (N, C, H, W)
    loss = slots.perturbation.backward(  # (), gradients in .grad
        model, lambda: slots.objective.loss(model, x, x_adv, targets)
    )
    return StepResult(loss=loss, targets=targets, x_adv=x_adv)


def update_parameters(
    optimizer: torch.optim.Optimizer, *, lr: float | Tensor, loss: Tensor
) -> None:
    """Take the optimizer step at learning rate `lr`, unless `loss` is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    # The flag by which gradient scalers make a fused optimizer skip a step, on the device.
    optimizer.found_inf = loss.isfinite().logical_not().float()  # type: ignore[attr-defined]
    optimizer.step()


class Stepper:
    """Takes the steps of a run: on a GPU as one CUDA graph, captured once for the whole run.

    The networks are compiled if the run's settings say so. With several ranks they are not, and the
    kernels are launched one by one, with communication between them.
    """

    def __init__(self, run: Run, state: TrainState) -> None:
        self.run = run
        self.state = state
        self.generator = torch.Generator(run.context.device)
        work: Callable[[Inputs], Tensor] = partial(take_step, run, state)
        is_single = run.context.process_group.size == 1
        self.compiled: CompiledStep | None = None
        if run.config.compile == "on" and is_single:
            passes = partial(take_passes, run, state)
            work = self.compiled = CompiledStep(run, state, passes=passes, step=work)
        is_graph = run.context.device.type == "cuda" and is_single
        self.take = GraphedCall(work, run.context.device) if is_graph else work

    def __call__(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Take step number `step`, from 0, on this rank's share of its batch.

        Returns the loss, a scalar on the device. Random draws of the network, such as for dropout,
        are a function of the step and of the rank.
        """
        context, seed = self.run.context, self.run.config.seed
        inputs: dict[str, float | Tensor] = {
            "x": x.contiguous(memory_format=self.state.image_format),
            "y": y,
            "noise": self._draw_noise(x, step),
            "lr": self.run.learning_rate(step),
            **self.state.slots.targets.annealed(step),
        }
        rank = context.process_group.rank
        with (
            self.run.calling_user_code(f"in step {step + 1} of the run"),
            seeds.global_generators(context.device, seed, "network", step, rank),
        ):
            return self.take(inputs)

    def uncompiled(self) -> AbstractContextManager[Any]:
        """Return a context in which passes of the networks are not compiled, nor run compiled."""
        if self.compiled is None:
            return nullcontext()
        force_eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return force_eager

    def _draw_noise(self, x: Tensor, step: int) -> Tensor:
        """Return this rank's share of the noise, which is drawn for the whole batch."""
        process_group = self.run.context.process_group
        self.generator.manual_seed(seeds.derive_seed(self.run.config.seed, "noise", step))
        whole = x if process_group.size == 1 else x.repeat(process_group.size, 1, 1, 1)
        noise = self.state.slots.objective.draw(whole, self.generator)
        return noise[process_group.rank * len(x) :][: len(x)]


#: The inputs of a step that are not scheduled numbers.
BATCH = ("x", "y", "noise")


def take_step(run: Run, state: TrainState, inputs: Inputs) -> Tensor:
    """Take a step on `inputs`: x, y, noise, and the scheduled numbers; return its loss."""
    batch, values = split_inputs(inputs)
    return train_step(
        state.model,
        state.slots,
        state.optimizer,
        **batch,
        values=values,
        arithmetic=arithmetic(run),
        process_group=run.context.process_group,
    ).loss


def take_passes(run: Run, state: TrainState, inputs: Inputs) -> None:
    """Run the forward and backward passes of a step on `inputs`, without an update."""
    batch, values = split_inputs(inputs)
    with arithmetic(run):
        run_passes(state.model, state.slots, **batch, values=values)


def split_inputs(inputs: Inputs) -> tuple[Mapping[str, Any], Values]:
    """Return the tensors of a batch, and the scheduled numbers, both by name."""
    values = {name: value for name, value in inputs.items() if name not in BATCH}
    return {name: inputs[name] for name in BATCH}, values


def arithmetic(run: Run) -> AbstractContextManager[Any]:
    """Return the context of the passes of a step."""
    return computing_in(run.arithmetic, run.context.device.type)
