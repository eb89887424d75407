"""A full disk or too little memory: one error, and progress saved so far is kept."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from adrbench.training import loop as training
from adrbench.training.state import Run, TrainState
from full_disk import disk_of
from runner import QUICK, command, succeed, tree
from training_runs import assert_same_run

LINE = ("train", "digits", "--method", "adr+wa", "--epochs", "3", "--steps", "1", "--name", "run")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_disk_that_is_full_from_the_start(empty: Path) -> None:
    with disk_of(50_000):
        outcome = command(*LINE)
    assert outcome.code == 1
    assert outcome.lines[-1] == (
        "error: cannot write checkpoints/run/last.pt: File too large; free the disk or write "
        "elsewhere."
    )
    assert list(tree(empty / "checkpoints" / "run")) == ["config.json"]
    succeed(*LINE)


def test_a_disk_that_fills_up_during_a_run(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the first epoch stays valid, and the run resumes from it once there is space."""
    succeed(*LINE, "--out", "whole")
    run_epoch = training.run_epoch

    def run_epoch_on_full_disk(run: Run, state: TrainState, *others: Any, **named: Any) -> Any:
        if state.epochs_done == 0:
            return run_epoch(run, state, *others, **named)
        with disk_of(50_000):
            return run_epoch(run, state, *others, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, "run_epoch", run_epoch_on_full_disk)
        outcome = command(*LINE, "--results", "other")
    assert outcome.code == 1
    assert "cannot write checkpoints/run/last.pt: File too large" in outcome.lines[-1]
    files = ["best.pt", "config.json", "history.jsonl", "last.pt"]
    assert sorted(tree(empty / "checkpoints" / "run")) == files
    outcome = succeed(*LINE, "--results", "other")
    assert "resuming at epoch 2 of 3" in outcome.err
    assert_same_run(empty / "whole" / "run", empty / "checkpoints" / "run")


def test_a_disk_without_space_for_the_progress_of_an_attack(empty: Path) -> None:
    succeed("train", "digits", "--method", "at", "--name", "run", *QUICK)
    attack = ("attack", "checkpoints/run/best.pt", "--suite", "pgd-2", "--out", "out")
    with disk_of(100):
        outcome = command(*attack)
    assert outcome.code == 1
    assert "cannot write out/.run-best-student-pgd-2-" in outcome.lines[-1]
    assert not (empty / "out").exists()
    succeed(*attack)


def test_a_disk_without_space_for_the_record_of_an_attack(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcomes are saved by then, so the same command only has to write the record."""
    succeed("train", "digits", "--method", "at", "--name", "run", *QUICK)
    attack = ("attack", "checkpoints/run/best.pt", "--suite", "pgd-2", "--out", "out")
    with disk_of(1200):
        outcome = command(*attack)
    assert outcome.code == 1
    assert "cannot write out/run-best-student-pgd-2-" in outcome.lines[-1]
    assert [name.rpartition(".")[2] for name in tree(empty / "out")] == ["state"]
    attacked = Mock(side_effect=AssertionError("it is attacked again"))
    monkeypatch.setattr("adrbench.attacks.pgd.PGD.perturb", attacked)
    succeed(*attack)
    (name,) = tree(empty / "out")
    assert json.loads((empty / "out" / name).read_text())["n"] == 360


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_too_little_memory_for_an_attack(
    empty: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    succeed("train", "digits", "--method", "at", "--name", "run", *QUICK)

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("adrbench.attacks.pgd.PGD.perturb", fail)
    outcome = command("attack", "checkpoints/run/best.pt", "--suite", "pgd-2")
    assert outcome.code == 1
    assert outcome.lines[-1] == (
        "error: there is not enough memory for a batch of 250: give --batch-size 125, or another "
        "--device; progress saved so far is kept."
    )


def test_other_errors_are_not_reported_as_too_little_memory(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("a mistake of ours")

    monkeypatch.setattr("adrbench.training.loop.train", fail)
    with pytest.raises(NotImplementedError):
        command("train", "digits", *QUICK)
