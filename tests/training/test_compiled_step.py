"""Steps with compiled networks: the results of plain steps, and plain steps where compiling fails.

Most tests use PyTorch's backend `aot_eager`, which traces and guards as `inductor` does and then
runs the operators one by one. It needs no compiler and takes a second.
"""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from adrbench.data import Dataset, epoch_batches, load_dataset
from adrbench.models.architectures import Architecture, find_architecture
from adrbench.results.history import HistoryRow
from adrbench.results.records import Session
from adrbench.runtime.context import Context
from adrbench.runtime.cuda_graphs import GraphedCall
from adrbench.runtime.process_group import ProcessGroup
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.training import compiled_step
from adrbench.training import loop as training
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.compiled_step import CompiledStep
from adrbench.training.state import build_state, prepare_run
from adrbench.training.step import Stepper
from logs import logged
from training_runs import CONTEXT, CPU, assert_same_run, make_config

STEPS = 3
COMPILING = "compiling the networks of the training step."
METHODS = ("at", "adr+wa+awp", "trades")
BACKENDS = ("aot_eager", pytest.param("inductor", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with a training part of a few batches."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200))


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """Forget what other tests compiled, since a process shares it among equal networks."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that counts the graphs that it compiles, with `aot_eager`."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, inputs)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Compile with a backend that counts."""
    backend = Counting()
    monkeypatch.setattr(compiled_step, "BACKEND", backend)
    return backend


def start(
    digits: Dataset,
    method: str,
    compile: str = "on",  # noqa: A002
    architecture: Architecture | None = None,
    device: torch.device = CPU,
    **changes: Any,
) -> Stepper:
    """Return the stepper of a run in its first session."""
    config = make_config(
        method, milestones=(0.55,), epochs=1, batch_size=64, compile=compile, **changes
    )
    if architecture is not None:
        config = config.with_settings(arch=architecture.name)
    run = prepare_run(config, digits, Path("unused"), Context(device=device), architecture)
    state = build_state(run)
    state.sessions = [Session(first_step=0, processes=1, device="cpu", started="")]
    return Stepper(run, state)


def take(stepper: Stepper, steps: int = STEPS) -> Tensor:
    """Take steps, and return their losses."""
    batches = epoch_batches(
        stepper.run.dataset.train, batch_size=64, seed=0, epoch=1, padding=1, flip=False
    )
    stepper.state.model.train()
    losses = [
        stepper(x, y, step).clone() for step, (x, y) in zip(range(steps), batches, strict=False)
    ]
    return torch.stack(losses)


def tensors(stepper: Stepper) -> dict[str, Tensor]:
    return {
        f"{weights} {key}": value.clone()
        for weights, model in stepper.state.models().items()
        for key, value in model.state_dict().items()
    }


def is_compiled(stepper: Stepper) -> bool:
    """Return whether the steps are compiled, in which the session must agree."""
    assert stepper.compiled is not None
    (session,) = stepper.state.sessions
    assert session.compiled == bool(stepper.compiled.is_compiled)
    return session.compiled


@pytest.fixture
def only_compiling() -> Iterator[None]:
    """Fail a test in which anything but the start of a compilation is logged."""
    with logged() as messages:
        yield
    assert set(messages) == {COMPILING}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("only_compiling")
def test_compiled_steps_equal_plain_steps(
    method: str, backend: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, weights, BatchNorm's statistics and the average are equal up to rounding.

    One step of the inner attack moves by the sign of a gradient, so rounding may grow with steps.
    """
    monkeypatch.setattr(compiled_step, "BACKEND", backend)
    plain, compiled = start(digits, method, "off"), start(digits, method)
    torch.testing.assert_close(take(compiled), take(plain), rtol=1e-3, atol=0)
    assert is_compiled(compiled)
    found = tensors(compiled)
    for key, value in tensors(plain).items():
        torch.testing.assert_close(found[key], value, rtol=1e-2, atol=1e-3, msg=key)


def test_the_first_loss_is_that_of_the_plain_step_to_rounding(
    digits: Dataset, counting: Counting
) -> None:
    losses = [take(start(digits, "adr+awp", choice), steps=1) for choice in ("off", "on")]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)
    assert counting.graphs == 4  # teacher, inner attack, loss, loss with frozen statistics


def losses_of_passes(stepper: Stepper) -> list[float]:
    """Return the losses of the two passes of a step with AWP: at the weights, and perturbed."""
    losses: list[float] = []
    objective = stepper.state.slots.objective
    plain_loss = objective.loss

    def loss(*arguments: Any) -> Tensor:
        value = plain_loss(*arguments)
        losses.append(float(value.detach()))
        return value

    object.__setattr__(objective, "loss", loss)
    take(stepper, steps=1)
    return losses[-2:]


def test_compiled_networks_see_the_weights_that_awp_changes(
    digits: Dataset, counting: Counting
) -> None:
    plain, compiled = (
        losses_of_passes(start(digits, "at+awp", choice, awp_rho=0.05)) for choice in ("off", "on")
    )
    assert counting.graphs > 0
    assert plain[1] > plain[0] + 0.01
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_a_rehearsal_leaves_no_trace(digits: Dataset, counting: Counting) -> None:
    """The step after it does nothing, so all that can have changed is what the rehearsal left."""
    stepper = start(digits, "adr+wa+awp")
    before = tensors(stepper)
    assert stepper.compiled is not None
    stepper.compiled.step = lambda inputs: torch.zeros(())
    random_state = torch.get_rng_state()
    take(stepper, steps=1)
    assert counting.graphs > 0
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in tensors(stepper).items():
        assert torch.equal(value, before[key]), key
    for model in stepper.state.models().values():
        assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in stepper.state.model.modules())
    assert all(parameter.requires_grad for parameter in stepper.state.model.parameters())


class StopAfterFirst(NoCallbacks):
    """Raises KeyboardInterrupt after the first epoch is saved."""

    def epoch(self, row: HistoryRow) -> None:
        if row.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_compiled_run_ends_with_bitwise_the_same_weights(
    digits: Dataset, tmp_path: Path
) -> None:
    config = make_config(epochs=2, compile="on")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record = training.train(config, digits, whole, context=CONTEXT)
    assert [session.compiled for session in record.sessions] == [True]
    torch._dynamo.reset()
    with pytest.raises(KeyboardInterrupt):
        training.train(config, digits, parts, context=CONTEXT, callbacks=StopAfterFirst())
    torch._dynamo.reset()
    record = training.train(config, digits, parts, context=CONTEXT)
    assert [session.compiled for session in record.sessions] == [True, True]
    assert_same_run(whole, parts)


class Counts(NoCallbacks):
    """Notes how many graphs are compiled after each step and epoch; stops after epoch `last`."""

    def __init__(self, backend: Counting, last: int) -> None:
        self.backend = backend
        self.last = last
        self.graphs: list[int] = []

    def step(self, *arguments: Any) -> None:
        self.graphs.append(self.backend.graphs)

    def epoch(self, row: HistoryRow) -> None:
        self.graphs.append(self.backend.graphs)
        if row.epoch == self.last:
            raise KeyboardInterrupt


def test_nothing_is_compiled_after_the_first_step(
    digits: Dataset, tmp_path: Path, counting: Counting
) -> None:
    """Neither in a second epoch, nor in a validation, nor when the run is resumed."""
    config = make_config("adr+wa+awp", epochs=4, batch_size=100, compile="on")
    for last in (2, 3):
        counts = Counts(counting, last)
        with pytest.raises(KeyboardInterrupt):
            training.train(config, digits, tmp_path / "run", context=CONTEXT, callbacks=counts)
        assert counts.graphs == [4] * (6 if last == 2 else 3)


class Linear(nn.Module):
    """A network of one layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64 * in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class Numbered(Linear):
    """A network that counts its passes and scales its logits by the number."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(x) * self.passes


def test_runs_of_one_process_are_all_compiled(digits: Dataset, counting: Counting) -> None:
    """By default, PyTorch compiles at most 8 variants of a network."""
    for index, batch_size in enumerate(range(2, 12), start=1):
        stepper = start(digits, "standard", architecture=find_architecture(Linear))
        x, y = digits.train.pixels[:batch_size] / 255, digits.train.labels[:batch_size]
        stepper(x, y, 0)
        assert is_compiled(stepper)
        assert counting.graphs == index


def refuse(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler found.\nMore text.")


def refuse_later() -> Callable[..., Any]:
    """Return a backend that fails at the third graph, when some passes have run."""
    graphs = []

    def compile_two(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return refuse(graph, inputs) if len(graphs) > 2 else graph.forward

    return compile_two


@pytest.mark.parametrize("backend", [refuse, refuse_later()])
def test_where_the_compiler_fails_steps_are_plain_after_one_warning(
    backend: Callable[..., Any], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_step, "BACKEND", backend)
    plain, stepper = start(digits, "adr+awp", "off"), start(digits, "adr+awp")
    expected = take(plain)
    with logged() as messages:
        losses = take(stepper)
    assert messages == [
        COMPILING,
        "running without a compiled step: torch.compile raised RuntimeError (no compiler found).",
    ]
    assert not is_compiled(stepper)
    assert torch.equal(losses, expected)
    for key, value in tensors(plain).items():
        assert torch.equal(value, tensors(stepper)[key]), key


def test_a_network_that_would_be_compiled_in_every_step_is_not(
    digits: Dataset, counting: Counting
) -> None:
    stepper = start(digits, "standard", architecture=find_architecture(Numbered))
    with logged() as messages:
        take(stepper)
    first, message = messages
    assert first == COMPILING
    assert "Detected recompile" in message
    assert "\n" not in message
    assert not is_compiled(stepper)
    assert counting.graphs == 1


def test_an_interruption_of_the_rehearsal_takes_no_step(
    digits: Dataset, counting: Counting
) -> None:
    stop = StopRequest()
    stepper = start(digits, "at")
    stepper.run = dataclasses.replace(stepper.run, context=Context(device=CPU, stop=stop))
    assert isinstance(stepper.compiled, CompiledStep)
    stepper.compiled.run = stepper.run
    before = tensors(stepper)
    with stop.deferred():
        stop.handle(signal.SIGINT, None)
        with pytest.raises(Interrupted):
            take(stepper)
    assert counting.graphs == 0
    for key, value in tensors(stepper).items():
        assert torch.equal(value, before[key]), key


def test_with_several_processes_steps_are_plain_after_a_warning(
    digits: Dataset, counting: Counting
) -> None:
    group = SimpleNamespace(size=2, rank=0, is_rank_zero=True)
    run = start(digits, "at").run
    run = dataclasses.replace(
        run, context=Context(device=CPU, process_group=cast(ProcessGroup, group))
    )
    state = build_state(run)
    with logged() as messages:
        training.start_session(run, state)
    assert messages == ["--compile on has no effect with several processes."]
    assert Stepper(run, state).compiled is None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["at", "adr+awp"])
@pytest.mark.usefixtures("only_compiling")
def test_a_compiled_step_is_captured_as_a_cuda_graph(
    method: str, precision: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    losses = []
    for choice in ("off", "on"):
        device = torch.device("cuda")
        stepper = start(digits, method, choice, device=device, precision=precision)
        first = take(stepper)
        losses.append(torch.cat([first, take(stepper)]))  # the second time, replayed
        assert isinstance(stepper.take, GraphedCall)
        assert stepper.take.replay is not None
    assert is_compiled(stepper)
    tolerance = 1e-3 if precision == "float32" else 5e-2
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=0)
