"""Process groups: several processes as torchrun starts them, compared with one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.errors import AdrbenchError, LostProcessError
from adrbench.runtime.launch import joined_process_group
from adrbench.runtime.process_group import SINGLE_PROCESS, lost_process_errors
from adrbench.runtime.torchrun import local_rank
from adrbench.training.checkpointer import LOCK
from runner import command, succeed

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "digits", "--epochs", "4", "--steps", "2", "--batch-size", "128")
#: Two processes start twice in most tests here, at three seconds each.
slow = pytest.mark.slow


def workers(launcher: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int(re.findall(r"PPid:\s+(\d+)", (entry / "status").read_text())[0]) == launcher:
                    found.append(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def launched(
    *arguments: str | Path, options: tuple[str, ...] = ("--standalone", "--nproc-per-node", "2")
) -> Iterator[Any]:
    """Run two processes of `python ARGUMENTS` under torchrun; kill them after the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            for worker in workers(process.pid):
                os.kill(worker, signal.SIGKILL)
            process.kill()


def together(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Run `adrbench ARGUMENTS` in two processes; return what they print."""
    with launched("-m", "--", "adrbench", *arguments) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_collectives_of_a_single_process_are_the_identity() -> None:
    assert (SINGLE_PROCESS.rank, SINGLE_PROCESS.size) == (0, 1)
    tensors = [torch.ones(3)]
    SINGLE_PROCESS.all_reduce_mean(tensors)
    assert torch.equal(tensors[0], torch.ones(3))
    assert list(SINGLE_PROCESS.claim("abc")) == ["a", "b", "c"]
    assert SINGLE_PROCESS.all_reduce_max(3) == 3
    assert SINGLE_PROCESS.all_gather(3) == [3]
    assert SINGLE_PROCESS.broadcast(3) == 3


def test_one_process_under_torchrun_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "nowhere")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert local_rank() is None
    with joined_process_group(torch.device("cpu")) as process_group:
        assert process_group is SINGLE_PROCESS


def test_a_runtime_error_of_a_collective_becomes_a_lost_process_error() -> None:
    with (
        pytest.raises(LostProcessError, match=r"has exited \(Connection closed by peer\)"),
        lost_process_errors(),
    ):
        raise RuntimeError("Connection closed by peer.\n  more of it")


MEMBERS = """
import os, sys
import torch
from adrbench.runtime.launch import joined_process_group

with joined_process_group(torch.device("cpu")) as process_group:
    rank, size = process_group.rank, process_group.size
    a, b = torch.full((2, 3), float(rank)), torch.tensor(10.0 * rank, dtype=torch.float64)
    transposed = torch.arange(6.0).view(2, 3).t() + rank
    process_group.all_reduce_mean([a, b, transposed])
    assert a.tolist() == [[0.5] * 3] * 2 and b.item() == 5 and b.dtype == torch.float64
    assert transposed.tolist() == (torch.arange(6.0).view(2, 3).t() + 0.5).tolist()
    assert process_group.all_reduce_max(rank + 3) == 4
    mask = torch.tensor([True, rank == 0, False])
    assert process_group.all_reduce_and(mask).tolist() == [True, False, False]
    assert process_group.all_gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert process_group.broadcast(f"of {rank}") == "of 0"
    for _ in range(2):
        mine = list(process_group.claim(range(101)))
        assert sorted(sum(process_group.all_gather(mine), [])) == list(range(101))
    process_group.barrier()
    print(f"{rank} of {size} passed")
sys.stdout.flush()
os._exit(0)
"""


@slow
def test_collectives_of_two_processes(empty: Path) -> None:
    Path("members.py").write_text(MEMBERS)
    with launched("members.py") as process:
        out, err = process.communicate(timeout=60)
    for rank in (0, 1):
        assert f"{rank} of 2 passed" in out, err


def saved_history(path: Path) -> list[Any]:
    training = checkpoints.load(path).training
    assert training is not None
    history: list[Any] = training["history"]
    return history


def weights(directory: Path) -> dict[str, torch.Tensor]:
    held = checkpoints.load(directory / checkpoints.LAST)
    return {
        f"{name} {key}": value
        for name, snapshot in held.snapshots.items()
        for key, value in snapshot.state.items()
    }


STEPS = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from adrbench.config.settings import TrainConfig
from adrbench.data import load_dataset
from adrbench.models.architectures import build_model
from adrbench.config.presets import find_preset
from adrbench.training.state import build_state, prepare_run
from adrbench.training.step import Stepper
from adrbench.config.method import parse_method
from adrbench.runtime.context import Context
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import Checkpointer
from adrbench.training.loop import take_steps
from adrbench.runtime.launch import joined_process_group
from torch import nn

method, out = sys.argv[1:]
with joined_process_group(torch.device("cpu")) as process_group:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    values = preset.values | {"epochs": 1, "steps": 2, "batch_size": 128}
    values |= {"dataset": "digits", "arch": "small-cnn", "method": method, "val_size": 143}
    config = TrainConfig.of(**values)
    data = load_dataset("digits", data_dir=Path("unused"))
    context = Context(device=torch.device("cpu"), process_group=process_group)
    run = prepare_run(config, data, Path("unused"), context)
    state = build_state(run)
    for layer in state.model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats, layer.momentum = True, 0.0
            layer.eval().train = lambda mode, layer=layer: layer
    checkpointer = Checkpointer(run, save_seconds=1e9)
    take_steps(run, state, Stepper(run, state), checkpointer, NoCallbacks())
    states = {
        f"{name} {key}": value
        for name, model in state.models().items() for key, value in model.state_dict().items()
    }
    for key, value in states.items():
        assert all(torch.equal(value, other) for other in process_group.all_gather(value)), key
    if process_group.rank == 0:
        torch.save(states | {"losses": state.losses.so_far()}, out)
sys.stdout.flush()
os._exit(0)
"""


@slow
@pytest.mark.parametrize("method", ["adr+wa+awp", "trades+adr"])
def test_two_processes_train_as_one_with_frozen_batch_norm(empty: Path, method: str) -> None:
    """The same batches, noise, targets and steps: equal up to the order of sums."""
    Path("steps.py").write_text(STEPS)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "steps.py", method, "one.pt"], env=environment, check=True)
    with launched("steps.py", method, "two.pt") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    one, two = (torch.load(name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one.keys() == two.keys()
    assert len(one["losses"]) == 10
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=2e-3, atol=2e-4, msg=key)


@slow
def test_two_processes_resume_to_the_same_weights_and_attack_to_the_same_outcomes(
    empty: Path,
) -> None:
    line = (*TRAIN, "--method", "adr+wa+awp")
    out, err = together(*line, "--name", "whole")
    assert out.count("validation PGD accuracy") == 2, "one rank prints"
    assert err.count("epoch 4/4") == 1
    last = Path("checkpoints/parts/last.pt")
    with launched("-m", "--", "adrbench", *line, "--name", "parts") as torchrun:
        wait_for(last.exists)
        torchrun.send_signal(signal.SIGTERM)
        torchrun.communicate(timeout=60)
    assert len(saved_history(last)) < 4
    together(*line, "--name", "parts")
    whole, parts = (weights(Path("checkpoints", name)) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    record = json.loads(Path("results/train-whole.json").read_text())
    assert [session["processes"] for session in record["sessions"]] == [2]
    outputs = ("--suite", "pgd-5,apgd-ce", "--outputs", "--n", "60")
    for suite in (outputs, ("--suite", "autoattack", "--n", "40")):
        attack = ("attack", "checkpoints/whole/best.pt", *suite, "--batch-size", "16")
        out, _ = together(*attack, "--out", "two")
        assert out.count("whole best") == suite[1].count(",") + 1
        succeed(*attack, "--out", "one")
    for path in Path("one").glob("*.json"):
        one, two = (json.loads(Path(place, path.name).read_text()) for place in ("one", "two"))
        assert (one["processes"], two["processes"]) == (1, 2)
        same = ("verdicts", "clean_correct", "robust_correct", "warnings", "parameters")
        assert {name: one[name] for name in same} == {name: two[name] for name in same}
        assert [s["survivors"] for s in one["stages"]] == [s["survivors"] for s in two["stages"]]
        assert one["outputs"] == two["outputs"], "the files have the same content"
    assert len(list(Path("two").glob("*.npz"))) == 2
    assert len(list(Path("two").iterdir())) == 5, "neither state nor lock is left"


KILLED = ("train", "digits", "--method", "adr+wa", "--epochs", "30", "--steps", "2", "--lr", "0.02")
OFTEN = ("--batch-size", "128", "--save-minutes", "0.001", "--name", "killed")


def assert_resumed(err: str) -> None:
    """Check that the killed run resumed, not restarted, and ended like an uninterrupted one."""
    assert "resuming at epoch" in err
    assert "Traceback" not in err
    record = json.loads(Path("results/train-killed.json").read_text())
    assert len(record["sessions"]) == 2
    assert record["sessions"][1]["first_step"] > 0
    together(*KILLED, *OFTEN, "--name", "whole")
    whole, killed = (weights(Path("checkpoints", name)) for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[key]) for key, value in whole.items())


@slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_a_killed_worker_is_restarted_and_the_run_resumes(empty: Path) -> None:
    """It resumes although the command has --force."""
    options = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    arguments = ("-m", "--", "adrbench", *KILLED, *OFTEN, "--force")
    with launched(*arguments, options=(*options, "--monitor-interval", "0.1")) as torchrun:
        wait_for(Path("checkpoints/killed/history.jsonl").exists)
        os.kill(workers(torchrun.pid)[-1], signal.SIGKILL)
        _, err = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0, err
    assert_resumed(err)


@slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_a_worker_killed_on_one_of_two_machines(empty: Path) -> None:
    """Only the agent of its own machine counts the restart."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    options = (
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two"),
        *("--rdzv-endpoint", endpoint, "--max-restarts", "3", "--monitor-interval", "0.1"),
    )
    arguments = ("-m", "--", "adrbench", *KILLED, *OFTEN)
    with (
        launched(*arguments, options=options) as one,
        launched(*arguments, options=options) as other,
    ):
        wait_for(Path("checkpoints/killed/history.jsonl").exists)
        os.kill(workers(other.pid)[-1], signal.SIGKILL)
        err = "".join(machine.communicate(timeout=120)[1] for machine in (one, other))
        assert (one.returncode, other.returncode) == (0, 0), err
    assert_resumed(err)


#: Simulates a machine of its own for each process by a working directory.
APART = """
import os, sys
os.chdir("machine-" + os.environ["RANK"])
from adrbench.cli.app import main
main()
"""


@slow
def test_machines_without_a_shared_file_system_get_an_error(empty: Path) -> None:
    Path("apart.py").write_text(APART)
    for rank in (0, 1):
        run = f"machine-{rank}/checkpoints/run"
        quick = ("--epochs", "1", "--steps", "1", "--batch-size", "128", "--method", "at")
        line = ("train", "digits", "--name", "run", *quick)
        place = ("--out", f"machine-{rank}/checkpoints", "--results", f"machine-{rank}/results")
        succeed(*line, "--seed", str(rank), *place)
        assert Path(run).exists()
    with launched("apart.py", "attack", "checkpoints/run", "--suite", "pgd-2") as torchrun:
        _, err = torchrun.communicate(timeout=60)
    assert err.count("error: the processes found different weights or images: use files") == 1
    assert not list(Path().rglob("*pgd*")), "no record, no state, no lock"
    Path("machine-1/checkpoints/run/last.pt").unlink()
    with launched("apart.py", *line[:-1], "at") as torchrun:
        _, err = torchrun.communicate(timeout=60)
    assert err.count("error: the processes see different states of checkpoints/run: give") == 1


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_stops_the_run(empty: Path, number: int) -> None:
    line = ("train", "digits", "--method", "at", "--batch-size", "128", "--name", "run")
    last = Path("checkpoints/run/last.pt")
    with launched("-m", "--", "adrbench", *line) as torchrun:
        wait_for(last.exists)
        torchrun.send_signal(number)
        _, err = torchrun.communicate(timeout=60)
    assert err.count("; saved: run the same command again to resume.") == 1, err
    assert torchrun.returncode == 1, "torchrun's own, whatever its workers end with"
    held = checkpoints.load(last).training
    assert held is not None
    done = len(held["history"]) * 10 + len(held["losses"])
    assert 10 <= done < 300
    assert not Path("checkpoints/run", LOCK).exists()


@slow
def test_an_error_of_all_ranks_is_reported_once(empty: Path) -> None:
    _, err = together("train", "digits", "--epochs", "0", code=1)
    assert err.count("error: --epochs is 0") == 1
    _, err = together("train", "digits", "--batch-size", "63", code=1)
    assert err.count("give --batch-size 62 or 64") == 1
    assert not Path("checkpoints").exists()
    succeed("train", "digits", "--epochs", "1", "--steps", "1", "--name", "run")
    _, err = together("train", "digits", "--epochs", "2", "--name", "run", code=1)
    assert err.count("contains a run with --epochs 1, not 2") == 1


def test_processes_take_a_gpu_each(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adrbench.runtime.devices import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == torch.device("cuda:1")
    assert choose_device("cuda", 0) == torch.device("cuda:0")
    assert choose_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(AdrbenchError, match="with several processes, choose cuda or cpu"):
        choose_device("cuda:0", 1)
    with pytest.raises(AdrbenchError, match=r"more processes than the 2 available CUDA .*-node 2"):
        choose_device("auto", 2)


def test_synchronised_batch_norm_needs_gpus(empty: Path) -> None:
    outcome = command("train", "digits", "--sync-batch-norm", "--device", "cpu")
    assert outcome.code == 2
    assert outcome.lines == ["error: --sync-batch-norm needs GPUs: omit it, or give --device cuda."]
