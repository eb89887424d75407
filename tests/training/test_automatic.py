"""Settings that are "auto": decided once, stored, and kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import adrbench
from adrbench.checkpoints.settings_file import CONFIG
from adrbench.errors import AdrbenchError
from adrbench.runtime import arithmetic
from adrbench.training import automatic, compiled_step
from adrbench.training.automatic import WORTH_COMPILING, choose_compilation
from runner import command, succeed

QUICK: dict[str, Any] = {"epochs": 1, "steps": 1, "batch_size": 512, "device": "cpu", "name": "run"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored_precision(name: str = "run") -> object:
    return json.loads((Path("checkpoints") / name / CONFIG).read_text())["precision"]


def test_a_run_on_a_cpu_is_in_float32_and_stores_that() -> None:
    run = adrbench.train("digits", method="at", **QUICK)
    assert run.record.precision == run.record.config["precision"] == "float32"
    assert stored_precision() == "float32"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_resumed_run_keeps_its_arithmetic(damaged: bool) -> None:
    adrbench.train("digits", method="at", precision="bfloat16", **QUICK)
    if damaged:
        (Path("checkpoints/run") / CONFIG).write_text("{")
    assert adrbench.train("digits", method="at", **QUICK).record.precision == "bfloat16"
    undecided = adrbench.train("digits", method="at", precision="auto", **QUICK)
    assert undecided.record.precision == "bfloat16"
    with pytest.raises(AdrbenchError, match="precision bfloat16, not float32"):
        adrbench.train("digits", method="at", precision="float32", **QUICK)


def test_a_run_that_this_device_cannot_continue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(arithmetic, "has_tensor_cores", lambda device: True)
        adrbench.train("digits", method="at", precision="tf32", **QUICK)
    with pytest.raises(AdrbenchError, match="trains in tf32, which cpu does not have: resume"):
        adrbench.train("digits", method="at", **QUICK)


def test_force_decides_again() -> None:
    adrbench.train("digits", method="at", precision="bfloat16", **QUICK)
    assert adrbench.train("digits", method="at", force=True, **QUICK).record.precision == "float32"


def test_a_run_on_a_gpu_with_tensor_cores_is_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_tensor_cores", lambda device: True)
    assert adrbench.train("digits", method="at", **QUICK).record.precision == "bfloat16"


def test_a_dry_run_shows_what_was_decided() -> None:
    lines = succeed("train", "digits", "--dry-run").out.splitlines()
    rows = [line.split() for line in lines]
    row = ["--precision", "float32", "automatic"]
    assert row in rows
    assert ["--compile", "off", "automatic"] in rows
    assert any(line.startswith("automatic: chosen for the device") for line in lines)
    lines = succeed("train", "digits", "--dry-run", "--precision", "auto").out.splitlines()
    assert row in [line.split() for line in lines]
    lines = succeed("train", "digits", "--dry-run", "--precision", "float32").out.splitlines()
    assert ["--precision", "float32", "given"] in [line.split() for line in lines]


def test_the_first_line_of_a_run_has_its_arithmetic() -> None:
    outcome = command("train", "digits", "--epochs", "1", "--steps", "1", "--method", "at")
    first, *_ = outcome.err.splitlines()
    assert "automatic: precision float32, compile off" in outcome.err.replace("\n", " "), first


@pytest.mark.parametrize(
    ("device", "total_steps", "processes", "choice"),
    [
        ("cuda", WORTH_COMPILING, 1, "on"),
        ("cuda", WORTH_COMPILING - 1, 1, "off"),
        ("cuda", WORTH_COMPILING, 2, "off"),
        ("cpu", WORTH_COMPILING, 1, "off"),
    ],
)
def test_long_runs_of_one_process_on_a_gpu_are_compiled(
    device: str, total_steps: int, processes: int, choice: str
) -> None:
    run: dict[str, Any] = {"total_steps": total_steps, "processes": processes}
    assert choose_compilation("auto", torch.device(device), **run) == choice
    assert choose_compilation("on", torch.device(device), **run) == "on"
    assert choose_compilation("off", torch.device(device), **run) == "off"


def test_a_resumed_run_stays_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_step, "BACKEND", "aot_eager")
    (session,) = adrbench.train("digits", method="at", compile="on", **QUICK).record.sessions
    assert session.compiled
    assert adrbench.train("digits", method="at", **QUICK).record.config["compile"] == "on"
    with pytest.raises(AdrbenchError, match="compile on, not off"):
        adrbench.train("digits", method="at", compile="off", **QUICK)


def test_a_run_of_an_earlier_version_stays_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    adrbench.train("digits", method="at", **QUICK)
    path = Path("checkpoints/run") / CONFIG
    stored = json.loads(path.read_text())
    assert stored.pop("compile") == "off"
    path.write_text(json.dumps(stored))
    monkeypatch.setattr(automatic, "choose_compilation", lambda choice, *rest, **kept: choice)
    assert adrbench.train("digits", method="at", **QUICK).record.config["compile"] == "off"
