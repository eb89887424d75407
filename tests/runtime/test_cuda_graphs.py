"""Graphed calls; without a GPU a stand-in replaces the capture."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adrbench.runtime.cuda_graphs import PLAIN_CALLS, GraphedCall, Inputs
from logs import logged

CPU = torch.device("cpu")
TESTS = Path(__file__).parents[1]


def again(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Stand in for a CUDA graph: repeat the work, into the tensor that holds the result."""
    result = torch.full_like(work(), torch.nan)

    def replay() -> None:
        result.copy_(work())

    return replay, result


def refuse(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    raise RuntimeError("operation not permitted when stream is capturing.\nMore text.")


def scaled(inputs: Mapping[str, Tensor]) -> Tensor:
    return inputs["x"].sum() * inputs["scale"]


def calls(replay: GraphedCall, count: int) -> list[float]:
    return [float(replay({"x": torch.full((2,), float(i)), "scale": 0.5})) for i in range(count)]


@pytest.mark.usefixtures("nothing_logged")
def test_a_replay_is_captured_once_and_follows_its_inputs() -> None:
    captured = []

    def capture(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        captured.append(work)
        return again(work)

    replay = GraphedCall(scaled, CPU, capture)
    assert calls(replay, PLAIN_CALLS) == [0.0, 1.0, 2.0]
    assert not captured
    assert calls(replay, 5) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(captured) == 1
    assert float(replay({"x": torch.ones(2), "scale": 3.0})) == 6.0


def test_work_that_cannot_be_captured_stays_plain_with_one_warning() -> None:
    replay = GraphedCall(scaled, CPU, refuse)
    with logged() as messages:
        assert calls(replay, 6) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    (message,) = messages
    assert "(operation not permitted when stream is capturing)." in message
    assert "\n" not in message


@pytest.mark.usefixtures("nothing_logged")
def test_later_changes_of_the_inputs_have_no_effect() -> None:
    kept: list[Tensor] = []

    def keep(inputs: Mapping[str, Tensor]) -> Tensor:
        kept.append(inputs["x"])
        return inputs["x"].sum()

    replay = GraphedCall(keep, CPU, again)
    x = torch.ones(2)
    replay({"x": x})
    x.zero_()
    assert kept[0].tolist() == [1.0, 1.0]


@pytest.mark.gpu
@pytest.mark.usefixtures("nothing_logged")
def test_a_cuda_graph_follows_its_inputs() -> None:
    device = torch.device("cuda")
    replay = GraphedCall(scaled, device)
    for i in range(PLAIN_CALLS + 3):
        inputs: Inputs = {"x": torch.full((2,), float(i), device=device), "scale": 0.5}
        assert float(replay(inputs)) == float(i)
    assert replay.replay is not None


REFUSED = """
import torch
from adrbench.runtime.cuda_graphs import PLAIN_CALLS, GraphedCall
from logs import logged

device = torch.device("cuda")
replay = GraphedCall(lambda inputs: inputs["x"] * inputs["x"].sum().item(), device)
before = torch.cuda.current_stream()
with logged() as messages:
    for i in range(PLAIN_CALLS + 3):
        x = torch.full((2,), float(i), device=device)
        assert replay({"x": x}).tolist() == [2.0 * i * i] * 2, i
assert len(messages) == 1, messages
assert torch.cuda.current_stream() == before
"""


@pytest.mark.gpu
def test_work_that_waits_for_the_device_is_not_captured() -> None:
    """In a separate process: some versions of PyTorch do not clean up after a failed capture."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], check=False, capture_output=True, cwd=TESTS
    )
    assert done.returncode == 0, done.stderr.decode()
