"""Training steps: graphed and plain ones agree, and none waits for the device."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from adrbench.data import Dataset, epoch_batches, load_dataset
from adrbench.runtime.context import Context
from adrbench.runtime.cuda_graphs import PLAIN_CALLS, Capture, GraphedCall
from adrbench.training.loss_buffer import LossBuffer
from adrbench.training.optimizer import load_momentum, read_momentum
from adrbench.training.state import build_state, prepare_run
from adrbench.training.step import Stepper, take_step
from training_runs import CPU, make_config

METHODS = ("standard", "at", "at+awp", "adr+wa", "adr+awp", "trades", "trades+adr+awp")
STEPS = PLAIN_CALLS + 4

#: Operations whose result the host has to wait for.
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "item")


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails on any operation for which the host would wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with a training part of a few batches."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(600))


def start(digits: Dataset, method: str, device: torch.device = CPU, **changes: Any) -> Stepper:
    """Return the stepper of a run whose learning rate falls while it is replayed."""
    config = make_config(method, milestones=(0.55,), epochs=1, batch_size=64, **changes)
    run = prepare_run(config, digits, Path("unused"), Context(device=device))
    return Stepper(run, build_state(run))


def replace_take(stepper: Stepper, capture: Capture | None) -> None:
    """Let a stepper work on static tensors, and replay what `capture` returns."""
    take = partial(take_step, stepper.run, stepper.state)
    stepper.take = GraphedCall(take, CPU)
    stepper.take.capture = capture


def take(stepper: Stepper) -> list[Tensor]:
    batches = epoch_batches(
        stepper.run.dataset.train, batch_size=64, seed=0, epoch=1, padding=1, flip=False
    )
    stepper.state.model.train()
    return [
        stepper(x, y, step).clone() for step, (x, y) in zip(range(STEPS), batches, strict=False)
    ]


def tensors(stepper: Stepper) -> dict[str, Tensor]:
    return {
        f"{weights} {key}": value
        for weights, model in stepper.state.models().items()
        for key, value in model.state_dict().items()
    }


def through(digits: Dataset, method: str, capture: Capture | None) -> tuple[Stepper, list[Tensor]]:
    stepper = start(digits, method)
    replace_take(stepper, capture)
    return stepper, take(stepper)


@pytest.mark.parametrize("method", METHODS)
def test_replayed_steps_equal_plain_steps(method: str, digits: Dataset) -> None:
    plain, plain_losses = through(digits, method, None)
    replayed, losses = through(digits, method, capture_once())
    assert torch.equal(torch.stack(losses), torch.stack(plain_losses))
    for key, value in tensors(plain).items():
        assert torch.equal(value, tensors(replayed)[key]), key


def capture_once() -> Capture:
    """Return a stand-in for a capture, which fails when it is called twice and does no work."""
    asked: list[Callable[[], Tensor]] = []

    def capture(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        assert not asked, "a run has one graph"
        asked.append(work)
        result = torch.zeros(())

        def replay() -> None:
            result.copy_(work())

        return replay, result

    return capture


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("nothing_logged")
def test_steps_on_tensors_agree_with_steps_on_numbers(method: str, digits: Dataset) -> None:
    stepper = start(digits, method)
    losses = take(stepper)
    other, other_losses = through(digits, method, None)
    torch.testing.assert_close(torch.stack(losses), torch.stack(other_losses))
    for key, value in tensors(stepper).items():
        torch.testing.assert_close(value, tensors(other)[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("nothing_logged")
def test_a_step_never_waits_for_the_device(
    method: str, precision: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = start(digits, method, precision=precision)
    images = stepper.run.dataset.train
    x, y = next(epoch_batches(images, batch_size=64, seed=0, epoch=1, padding=1, flip=False))
    # On the CPU, and only there, one_hot reads its labels first.
    monkeypatch.setattr(F, "one_hot", lambda y, classes: torch.eye(classes).long()[y])
    # A fused optimizer on the CPU reads its learning rate inside of its own kernel.
    for _ in ("on numbers", "on tensors"):
        with NoWaiting():  # type: ignore[no-untyped-call]
            for step in range(2):
                stepper(x, y, step)
        replace_take(stepper, None)


def test_the_guard_against_waiting_works() -> None:
    guard = NoWaiting()  # type: ignore[no-untyped-call]
    with guard, pytest.raises(AssertionError, match="_local_scalar_dense"):
        bool(torch.ones(()) > 0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.usefixtures("nothing_logged")
def test_a_loss_that_is_not_finite_keeps_the_parameters(device: str, digits: Dataset) -> None:
    stepper = start(digits, "at", torch.device(device))
    model = stepper.state.model
    before = {key: value.clone() for key, value in model.named_parameters()}
    x = torch.full((64, 1, 8, 8), torch.nan, device=device)
    loss = stepper(x, torch.zeros(64, dtype=torch.int64, device=device), 0)
    assert not loss.isfinite()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]), key


def test_restored_momenta_have_the_memory_format_of_their_parameters() -> None:
    """A fused optimizer reads both in memory order; the reference is one that is not fused."""
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    momentum = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    stepped = []
    for fused in (False, True):
        parameter = torch.nn.Parameter(weights.contiguous(memory_format=torch.channels_last))
        parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=fused)
        load_momentum(optimizer, [momentum])
        optimizer.step()
        stepped.append(parameter.detach())
    torch.testing.assert_close(stepped[1], stepped[0])


def test_a_parameter_that_never_had_a_gradient_has_no_momentum() -> None:
    """Torch keeps no state for it, neither before nor after a run is restored."""
    states: list[list[Tensor | None]] = []
    for restored in (False, True):
        used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        optimizer = torch.optim.SGD([used, unused], lr=0.1, momentum=0.9)
        if restored:
            load_momentum(optimizer, states[0])
        else:
            used.grad = torch.ones(2)
            optimizer.step()
        states.append(read_momentum(optimizer))
    for momentum, other in states:
        assert momentum is not None
        assert torch.equal(momentum, torch.ones(2))
        assert other is None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("nothing_logged")
def test_a_cuda_graph_gives_bitwise_the_weights_of_plain_steps(
    method: str, precision: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    states = []
    for captured in (False, True):
        stepper = start(digits, method, torch.device("cuda"), precision=precision)
        assert isinstance(stepper.take, GraphedCall)
        if not captured:
            stepper.take.capture = None
        losses = take(stepper)
        assert (stepper.take.replay is not None) == captured
        states.append({"losses": torch.stack(losses), **tensors(stepper)})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.usefixtures("nothing_logged")
def test_an_epoch_on_a_gpu_never_waits_for_it(digits: Dataset) -> None:
    """Once the graph is captured, batches, steps and losses are all asynchronous."""
    stepper = start(digits, "adr+awp", torch.device("cuda"))
    take(stepper)
    losses = LossBuffer(STEPS, stepper.run.context.device)
    images = stepper.run.dataset.train
    batches = epoch_batches(images, batch_size=64, seed=0, epoch=2, padding=1, flip=True)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for step, (x, y) in zip(range(STEPS), batches, strict=False):
            losses.record(stepper(x, y, step))
            losses.arrived()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(losses.arrived(wait=True)) > 0
