"""Training: determinism, resuming, selection, and stopping before damage."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError, DataError
from adrbench.training import loop as training
from adrbench.training import resuming, saving
from adrbench.training import state as runs
from training_runs import CPU, EPOCHS, assert_same_run, make_config, stable_history


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with a small training part, so that an epoch takes a moment."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200), test=whole.test.first(50))


class StopAfter(training.NoCallbacks):
    """Interrupts once an epoch is saved."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def epoch(self, row: dict[str, Any]) -> None:
        if row["epoch"] == self.last:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    training.train(make_config(), digits, directory, device=CPU)
    return directory


def test_the_same_command_gives_bitwise_the_same_weights(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(12345)  # whatever the process did before plays no part
    training.train(make_config(), digits, tmp_path / "run", device=CPU)
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_run_stopped_after_any_epoch_ends_in_the_same_weights(
    epoch: int, undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(make_config(), digits, directory, device=CPU, callbacks=StopAfter(epoch))
    assert checkpoints.load(directory / checkpoints.LAST).snapshots["student"].epoch == epoch
    training.train(make_config(), digits, directory, device=CPU)
    assert_same_run(undisturbed, directory)


def test_a_best_checkpoint_from_a_lost_epoch_does_no_harm(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    """Stopped between writing best.pt and last.pt: the epoch is run again, to the same end."""
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(make_config(), digits, directory, device=CPU, callbacks=StopAfter(2))
    shutil.copy(directory / checkpoints.LAST, tmp_path / "earlier.pt")
    training.train(make_config(), digits, directory, device=CPU)
    shutil.copy(tmp_path / "earlier.pt", directory / checkpoints.LAST)
    training.train(make_config(), digits, directory, device=CPU)
    assert_same_run(undisturbed, directory)


def test_a_finished_run_is_not_touched(undisturbed: Path, digits: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    record = training.train(make_config(), digits, undisturbed, device=CPU)
    assert {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before
    assert [row["epoch"] for row in record.history] == [1, 2, 3]


def test_another_setting_is_refused_with_both_values(undisturbed: Path, digits: Dataset) -> None:
    with pytest.raises(AdrbenchError, match=r"--lr 0\.05, not 0\.01"):
        training.train(make_config(lr=0.01), digits, undisturbed, device=CPU)


def test_other_images_are_refused(undisturbed: Path, digits: Dataset) -> None:
    other = dataclasses.replace(digits, train=digits.train.take(torch.arange(199, -1, -1)))
    with pytest.raises(AdrbenchError, match="other images"):
        training.train(make_config(), other, undisturbed, device=CPU)


def test_another_seed_gives_other_weights(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    training.train(make_config(seed=1, epochs=1), digits, tmp_path / "run", device=CPU)
    one = checkpoints.load(undisturbed / checkpoints.LAST).snapshots["student"].state
    other = checkpoints.load(tmp_path / "run" / checkpoints.LAST).snapshots["student"].state
    assert any(not torch.equal(value, other[key]) for key, value in one.items() if "weight" in key)


def test_best_holds_the_epoch_that_selection_chooses(undisturbed: Path) -> None:
    history = stable_history(undisturbed)
    best = checkpoints.load(undisturbed / checkpoints.BEST)
    assert set(best.snapshots) == {"student", "average"}
    for weights, snapshot in best.snapshots.items():
        chosen = saving.best_row(history, weights)
        assert snapshot.epoch == chosen["epoch"]
        assert snapshot.robust_correct == chosen[f"{weights}_robust_correct"]


def row(epoch: int, clean: int, robust: int, criterion: str) -> dict[str, Any]:
    counts = {"student_clean_correct": clean, "student_robust_correct": robust}
    return {"epoch": epoch, "criterion": criterion, **counts}


@pytest.mark.parametrize(("criterion", "chosen"), [("robust", 3), ("clean", 2)])
def test_the_best_epoch_by_hand(criterion: str, chosen: int) -> None:
    """Robust 5, 4, 5, 5 with clean 6, 9, 8, 8: the tie goes to more clean, then to the first."""
    counts = [(6, 5), (9, 4), (8, 5), (8, 5)]
    history = [row(i, *count, criterion) for i, count in enumerate(counts, start=1)]
    assert saving.best_row(history, "student")["epoch"] == chosen


def test_standard_training_is_after_clean_accuracy(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("standard", epochs=4, milestones=())
    training.train(config, digits, tmp_path / "run", device=CPU)
    history = stable_history(tmp_path / "run")
    best = checkpoints.load(tmp_path / "run" / checkpoints.BEST).snapshots["student"]
    assert best.clean_correct == max(row["student_clean_correct"] for row in history)


def test_the_learning_rate_falls_at_the_milestone(undisturbed: Path) -> None:
    """40 % of nine steps is step 4 of 0 to 8, in the second epoch; a row has its last step's."""
    assert [row["lr"] for row in stable_history(undisturbed)] == pytest.approx([0.05, 0.005, 0.005])


def test_selection_on_the_test_split_is_recorded(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("at", select="test", val_size=0, epochs=1)
    record = training.train(config, digits, tmp_path / "run", device=CPU)
    assert record.history[0]["select"] == "test"
    assert record.history[0]["select_n"] == 50


def test_training_lowers_the_loss_and_learns(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("at", epochs=12, eps=0.02, alpha=0.01)
    record = training.train(config, digits, tmp_path / "run", device=CPU)
    first, last = record.history[0], record.history[-1]
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert last["student_robust_correct"] > 40 * 0.4
    assert record.images_per_second > 0


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(
    digits: Dataset, tmp_path: Path
) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = make_config("adr+awp", precision=precision, epochs=1)
        directory = tmp_path / precision
        losses[precision] = training.train(config, digits, directory, device=CPU).history[0][
            "train_loss"
        ]
        state = checkpoints.load(directory / checkpoints.LAST).snapshots["average"].state
        assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_a_loss_that_is_not_finite_stops_before_the_update(digits: Dataset, tmp_path: Path) -> None:
    """With such a learning rate the weights blow up within a few epochs."""
    directory = tmp_path / "run"
    config = make_config("at", lr=1e5, momentum=0.0, milestones=(), epochs=20)
    with pytest.raises(
        AdrbenchError, match=r"not finite .* lower --lr|the loss is .* at step .* lower --lr"
    ):
        training.train(config, digits, directory, device=CPU)
    run = runs.prepare(config, digits, directory, CPU)
    if (directory / checkpoints.LAST).exists():
        resuming.resume(run)
    assert all(value.isfinite().all() for value in run.model.parameters())


def test_less_than_a_batch_is_refused_and_nothing_is_written(
    digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="too few for one batch of 201"):
        training.train(make_config(batch_size=201), digits, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_a_gpu_trains_like_the_cpu(digits: Dataset, tmp_path: Path) -> None:
    rows = []
    for name in ("cpu", "cuda"):
        config = make_config("adr+wa+awp", epochs=1)
        record = training.train(config, digits, tmp_path / name, device=torch.device(name))
        rows.append(record.history[0]["train_loss"])
    assert rows[1] == pytest.approx(rows[0], rel=0.02)


def test_a_run_keeps_its_label_and_the_fingerprint_of_its_training_images(
    digits: Dataset, tmp_path: Path
) -> None:
    config = make_config(epochs=1)
    for name, label in ((runs.run_name(config, "digits"), ""), ("lr0.02-s0", "lr0.02-s0")):
        record = training.train(config, digits, tmp_path / name, device=CPU)
        checkpoint = checkpoints.load(tmp_path / name / checkpoints.LAST)
        for made in (record, checkpoint):
            assert made.label == label
            assert made.training_images_sha256 == digits.training_images_sha256 is not None
