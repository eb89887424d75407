"""Settings that are "auto": decided once, stored, and kept."""

import json
from pathlib import Path
from typing import Any

import pytest

import adrbench
from adrbench.errors import AdrbenchError
from adrbench.runtime import arithmetic
from adrbench.training.checkpointer import CONFIG
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
    automatic = adrbench.train("digits", method="at", precision="auto", **QUICK)
    assert automatic.record.precision == "bfloat16"
    with pytest.raises(AdrbenchError, match="precision bfloat16, not float32"):
        adrbench.train("digits", method="at", precision="float32", **QUICK)


def test_force_decides_again() -> None:
    adrbench.train("digits", method="at", precision="bfloat16", **QUICK)
    assert adrbench.train("digits", method="at", force=True, **QUICK).record.precision == "float32"


def test_a_run_on_a_gpu_with_tensor_cores_is_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_tensor_cores", lambda device: True)
    assert adrbench.train("digits", method="at", **QUICK).record.precision == "bfloat16"


def test_a_dry_run_shows_what_was_decided() -> None:
    lines = succeed("train", "digits", "--dry-run").out.splitlines()
    (row,) = (line.split() for line in lines if line.startswith("--precision"))
    assert row == ["--precision", "float32", "automatic"]
    assert any(line.startswith("automatic: chosen for the device") for line in lines)
    lines = succeed("train", "digits", "--dry-run", "--precision", "auto").out.splitlines()
    assert row in [line.split() for line in lines]
    lines = succeed("train", "digits", "--dry-run", "--precision", "float32").out.splitlines()
    assert ["--precision", "float32", "given"] in [line.split() for line in lines]


def test_the_first_line_of_a_run_has_its_arithmetic() -> None:
    outcome = command("train", "digits", "--epochs", "1", "--steps", "1", "--method", "at")
    first, *_ = outcome.err.splitlines()
    assert "automatic: precision float32" in outcome.err.replace("\n", " "), first
