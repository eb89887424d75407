"""Logs for TensorBoard: what they hold, after an interruption too, and without the package."""

import sys
from pathlib import Path
from typing import Any

import pytest

import adrbench
from adrbench.errors import AdrbenchError
from adrbench.results.history import HistoryRow
from messages import assert_one_sentence
from runner import QUICK, command, tree

SIZE: dict[str, Any] = {"method": "adr", "epochs": 3, "steps": 1, "name": "it"}


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Stopping(adrbench.NoCallbacks):
    """Callbacks that end the training in its second epoch."""

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        if epoch == 2:
            raise ZeroDivisionError


def read_scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of each tag, as TensorBoard shows them."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    log = pytest.importorskip(module).EventAccumulator(str(directory))
    log.Reload()
    return {
        tag: [(event.step, event.value) for event in log.Scalars(tag)]
        for tag in log.Tags()["scalars"]
    }


def check_scalars(rows: list[HistoryRow]) -> None:
    """Check that the log has the values of the history, which event files hold in float32."""
    expected = {
        "train/loss": [row.train_loss for row in rows],
        "train/learning_rate": [row.lr for row in rows],
        "train/temperature": [row.annealed["temperature"] for row in rows],
        "train/interpolation": [row.annealed["interpolation"] for row in rows],
        "train/images_per_second": [row.images_per_second for row in rows],
        "validation/student_clean_accuracy": [row.accuracy("student", "clean") for row in rows],
        "validation/student_robust_accuracy": [row.accuracy("student", "robust") for row in rows],
        "validation/average_clean_accuracy": [row.accuracy("average", "clean") for row in rows],
        "validation/average_robust_accuracy": [row.accuracy("average", "robust") for row in rows],
    }
    scalars = read_scalars(Path("logs/it"))
    assert scalars.keys() == expected.keys()
    for tag, found in scalars.items():
        assert [step for step, _ in found] == [row.epoch for row in rows], tag
        assert [value for _, value in found] == pytest.approx(expected[tag], rel=1e-6), tag


def test_a_run_has_one_subdirectory_with_the_scalars_of_each_epoch() -> None:
    pytest.importorskip("tensorboard")
    run = adrbench.train("digits", tensorboard="logs", **SIZE)
    assert [path.name for path in Path("logs").iterdir()] == ["it"]
    check_scalars(run.record.rows())


@pytest.mark.parametrize("is_logged_from_the_start", [True, False])
def test_a_resumed_run_has_each_epoch_once(is_logged_from_the_start: bool) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(AdrbenchError, match="ZeroDivisionError"):
        adrbench.train(
            "digits",
            tensorboard="logs" if is_logged_from_the_start else None,
            callbacks=Stopping(),
            **SIZE,
        )
    run = adrbench.train("digits", tensorboard="logs", **SIZE)
    check_scalars(run.record.rows())


def test_a_finished_run_gets_its_log_without_being_trained_again() -> None:
    pytest.importorskip("tensorboard")
    first = adrbench.train("digits", **SIZE)
    again = adrbench.train("digits", **SIZE, tensorboard="logs")
    assert again.record == first.record
    check_scalars(first.record.rows())


def test_a_run_that_starts_over_replaces_its_log() -> None:
    pytest.importorskip("tensorboard")
    adrbench.train("digits", tensorboard="logs", **SIZE)
    run = adrbench.train("digits", tensorboard="logs", force=True, **SIZE | {"epochs": 2})
    check_scalars(run.record.rows())


def test_without_the_package_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = tree(Path())
    outcome = command("train", "digits", "--method", "at", "--tensorboard", "logs", *QUICK)
    assert outcome.code == 1
    assert_one_sentence(
        outcome.lines[0], "--tensorboard needs", 'pip install "adrbench[tensorboard]"'
    )
    assert tree(Path()) == before
