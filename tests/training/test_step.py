"""Training steps of a run: replayed as they are taken plainly, without waiting for the device."""

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
from adrbench.runtime.cuda_graphs import PLAIN_CALLS, Capture, GraphedCall, LossBuffer
from adrbench.training.resuming import lay_out_momenta
from adrbench.training.state import Run, prepare
from adrbench.training.step import Stepper, take_step
from training_runs import make_config

CPU = torch.device("cpu")
METHODS = ("standard", "at", "at+awp", "adr+wa", "adr+awp", "trades", "trades+adr+awp")
STEPS = PLAIN_CALLS + 4

#: Operations whose result the host has to wait for.
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "item")


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails on any operation that a GPU would make the host wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with a training part of a few batches."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(600))


def start(digits: Dataset, method: str, device: torch.device = CPU, **changes: Any) -> Run:
    """Return a run whose learning rate falls while it is replayed."""
    config = make_config(method, milestones=(0.55,), epochs=1, batch_size=64, **changes)
    return prepare(config, digits, Path("unused"), device)


def take(run: Run, stepper: Stepper) -> list[Tensor]:
    batches = epoch_batches(
        run.dataset.train, batch_size=64, seed=0, epoch=1, padding=1, flip=False
    )
    run.model.train()
    return [
        stepper(x, y, step).clone() for step, (x, y) in zip(range(STEPS), batches, strict=False)
    ]


def state(run: Run) -> dict[str, Tensor]:
    return {
        f"{weights} {key}": value
        for weights, model in run.models().items()
        for key, value in model.state_dict().items()
    }


def through(digits: Dataset, method: str, capture: Capture | None) -> tuple[Run, list[Tensor]]:
    run = start(digits, method)
    stepper = Stepper(run)
    replay = GraphedCall(partial(take_step, run), CPU)
    replay.capture = capture
    stepper.take = replay
    return run, take(run, stepper)


@pytest.mark.parametrize("method", METHODS)
def test_replayed_steps_are_those_taken_plainly(method: str, digits: Dataset) -> None:
    plain, plain_losses = through(digits, method, None)
    replayed, losses = through(digits, method, capture_once())
    assert torch.equal(torch.stack(losses), torch.stack(plain_losses))
    for key, value in state(plain).items():
        assert torch.equal(value, state(replayed)[key]), key


def capture_once() -> Capture:
    """Return a stand-in for a capture that is only asked for once, and does no work of its own."""
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
    run = start(digits, method)
    losses = take(run, Stepper(run))
    other, other_losses = through(digits, method, None)
    torch.testing.assert_close(torch.stack(losses), torch.stack(other_losses))
    for key, value in state(run).items():
        torch.testing.assert_close(value, state(other)[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("nothing_logged")
def test_a_step_never_waits_for_the_device(
    method: str, precision: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(digits, method, precision=precision)
    stepper = Stepper(run)
    on_tensors = GraphedCall(partial(take_step, run), CPU)
    on_tensors.capture = None
    x, y = next(
        epoch_batches(run.dataset.train, batch_size=64, seed=0, epoch=1, padding=1, flip=False)
    )
    # On the CPU, and only there, this looks at its labels first.
    monkeypatch.setattr(F, "one_hot", lambda y, classes: torch.eye(classes).long()[y])
    # A fused optimizer on the CPU reads its learning rate inside of its own kernel.
    for take in (stepper.take, on_tensors):
        stepper.take = take
        with NoWaiting():  # type: ignore[no-untyped-call]
            for step in range(2):
                stepper(x, y, step)


def test_the_guard_against_waiting_notices() -> None:
    guard = NoWaiting()  # type: ignore[no-untyped-call]
    with guard, pytest.raises(AssertionError, match="_local_scalar_dense"):
        bool(torch.ones(()) > 0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.usefixtures("nothing_logged")
def test_a_loss_that_is_not_finite_leaves_the_parameters(device: str, digits: Dataset) -> None:
    run = start(digits, "at", torch.device(device))
    before = {key: value.clone() for key, value in run.model.named_parameters()}
    x = torch.full((64, 1, 8, 8), torch.nan, device=device)
    loss = Stepper(run)(x, torch.zeros(64, dtype=torch.int64, device=device), 0)
    assert not loss.isfinite()
    for key, value in run.model.named_parameters():
        assert torch.equal(value, before[key]), key


def test_momenta_lie_as_their_parameters_do() -> None:
    """A fused optimizer walks both in memory order; the plain one says what should come out."""
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    momentum = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    stepped = []
    for fused in (False, True):
        parameter = torch.nn.Parameter(weights.contiguous(memory_format=torch.channels_last))
        parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=fused)
        optimizer.state[parameter]["momentum_buffer"] = momentum.clone()
        lay_out_momenta(optimizer)
        optimizer.step()
        stepped.append(parameter.detach())
    torch.testing.assert_close(stepped[1], stepped[0])


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
        run = start(digits, method, torch.device("cuda"), precision=precision)
        stepper = Stepper(run)
        assert isinstance(stepper.take, GraphedCall)
        if not captured:
            stepper.take.capture = None
        losses = take(run, stepper)
        assert (stepper.take.replay is not None) == captured
        states.append({"losses": torch.stack(losses), **state(run)})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.usefixtures("nothing_logged")
def test_an_epoch_on_a_gpu_never_waits_for_it(digits: Dataset) -> None:
    """Once the graph is there, making batches, stepping and reading losses all run ahead."""
    run = start(digits, "adr+awp", torch.device("cuda"))
    stepper = Stepper(run)
    take(run, stepper)
    losses = LossBuffer(STEPS, run.device)
    batches = epoch_batches(run.dataset.train, batch_size=64, seed=0, epoch=2, padding=1, flip=True)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for step, (x, y) in zip(range(STEPS), batches, strict=False):
            losses.record(stepper(x, y, step))
            losses.arrived()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(losses.arrived(wait=True)) > 0
