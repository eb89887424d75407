"""Training: determinism, resuming, selection, and stopping before a run diverges."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.config.method import WEIGHTS
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError, DataError
from adrbench.results.best_epoch import best_row
from adrbench.results.history import HistoryRow
from adrbench.runtime.context import Context
from adrbench.training import loop as training
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import HISTORY, Checkpointer
from adrbench.training.run_names import run_name
from adrbench.training.state import build_state, prepare_run
from training_runs import CONTEXT, EPOCHS, assert_same_run, make_config, stable_history


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with a small training part, so that an epoch takes a moment."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200), test=whole.test.first(50))


class StopAfter(NoCallbacks):
    """Raises KeyboardInterrupt after an epoch is saved."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def epoch(self, row: HistoryRow) -> None:
        if row.epoch == self.last:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    training.train(make_config(), digits, directory, context=CONTEXT)
    return directory


def test_the_same_command_gives_bitwise_the_same_weights(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(12345)  # the random state of the process has no effect
    training.train(make_config(), digits, tmp_path / "run", context=CONTEXT)
    assert_same_run(uninterrupted, tmp_path / "run")


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_run_stopped_after_any_epoch_ends_with_the_same_weights(
    epoch: int, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(
            make_config(), digits, directory, context=CONTEXT, callbacks=StopAfter(epoch)
        )
    assert checkpoints.load(directory / checkpoints.LAST).snapshots["student"].epoch == epoch
    training.train(make_config(), digits, directory, context=CONTEXT)
    assert_same_run(uninterrupted, directory)


def test_a_best_checkpoint_of_a_repeated_epoch_is_accepted(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    """The state is one epoch older than the best weights: the epoch is repeated, bit for bit."""
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        training.train(make_config(), digits, directory, context=CONTEXT, callbacks=StopAfter(2))
    shutil.copy(directory / checkpoints.LAST, tmp_path / "earlier.pt")
    training.train(make_config(), digits, directory, context=CONTEXT)
    shutil.copy(tmp_path / "earlier.pt", directory / checkpoints.LAST)
    training.train(make_config(), digits, directory, context=CONTEXT)
    assert_same_run(uninterrupted, directory)


def test_a_finished_run_is_not_changed(uninterrupted: Path, digits: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    record = training.train(make_config(), digits, uninterrupted, context=CONTEXT)
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.iterdir()} == before
    assert [row.epoch for row in record.rows()] == [1, 2, 3]


def test_another_setting_is_refused_with_both_values(uninterrupted: Path, digits: Dataset) -> None:
    with pytest.raises(AdrbenchError, match=r"--lr 0\.05, not 0\.01"):
        training.train(make_config(lr=0.01), digits, uninterrupted, context=CONTEXT)


def test_a_setting_that_one_of_two_runs_lacks_is_named(
    uninterrupted: Path, digits: Dataset
) -> None:
    with pytest.raises(
        AdrbenchError, match=r"run contains a run without --split-seed, not --split-"
    ):
        training.train(make_config(split_seed=3), digits, uninterrupted, context=CONTEXT)


def test_other_images_are_refused(uninterrupted: Path, digits: Dataset) -> None:
    other = dataclasses.replace(digits, train=digits.train.take(torch.arange(199, -1, -1)))
    with pytest.raises(AdrbenchError, match="other images"):
        training.train(make_config(), other, uninterrupted, context=CONTEXT)


def test_another_seed_gives_other_weights(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    training.train(make_config(seed=1, epochs=1), digits, tmp_path / "run", context=CONTEXT)
    one = checkpoints.load(uninterrupted / checkpoints.LAST).snapshots["student"].state
    other = checkpoints.load(tmp_path / "run" / checkpoints.LAST).snapshots["student"].state
    assert any(not torch.equal(value, other[key]) for key, value in one.items() if "weight" in key)


def test_best_holds_the_epoch_that_selection_chooses(uninterrupted: Path) -> None:
    lines = (uninterrupted / HISTORY).read_text().splitlines()
    history = [HistoryRow.from_json(json.loads(line)) for line in lines]
    best = checkpoints.load(uninterrupted / checkpoints.BEST)
    assert set(best.snapshots) == set(WEIGHTS)
    for weights in WEIGHTS:
        chosen = best_row(history, weights)
        assert best.snapshots[weights].epoch == chosen.epoch
        assert best.snapshots[weights].counts == chosen.counts[weights]


def test_standard_training_selects_by_clean_accuracy(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("standard", epochs=4, milestones=())
    training.train(config, digits, tmp_path / "run", context=CONTEXT)
    history = stable_history(tmp_path / "run")
    best = checkpoints.load(tmp_path / "run" / checkpoints.BEST).snapshots["student"]
    assert best.counts is not None
    assert best.counts.clean_correct == max(row["student_clean_correct"] for row in history)


def test_the_learning_rate_falls_at_the_milestone(uninterrupted: Path) -> None:
    """Step 4 of 0 to 8, after 40 % of the run, is in the second epoch; rows have its last rate."""
    assert [row["lr"] for row in stable_history(uninterrupted)] == pytest.approx(
        [0.05, 0.005, 0.005]
    )


def test_selection_on_the_test_split_is_recorded(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("at", select="test", val_size=0, epochs=1)
    record = training.train(config, digits, tmp_path / "run", context=CONTEXT)
    (row,) = record.rows()
    assert (row.select, row.select_n) == ("test", 50)


def test_training_lowers_the_loss_and_learns(digits: Dataset, tmp_path: Path) -> None:
    config = make_config("at", epochs=12, eps=0.02, alpha=0.01)
    record = training.train(config, digits, tmp_path / "run", context=CONTEXT)
    first, *_, last = record.rows()
    assert last.train_loss < 0.8 * first.train_loss
    assert last.accuracy("student", "robust") > 40
    assert record.images_per_second > 0


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(
    digits: Dataset, tmp_path: Path
) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = make_config("adr+awp", precision=precision, epochs=1)
        directory = tmp_path / precision
        (row,) = training.train(config, digits, directory, context=CONTEXT).rows()
        losses[precision] = row.train_loss
        state = checkpoints.load(directory / checkpoints.LAST).snapshots["average"].state
        assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_a_loss_that_is_not_finite_stops_before_the_update(digits: Dataset, tmp_path: Path) -> None:
    """At this learning rate the weights diverge within a few epochs."""
    directory = tmp_path / "run"
    config = make_config("at", lr=1e5, momentum=0.0, milestones=(), epochs=20)
    with pytest.raises(
        AdrbenchError, match=r"not finite .* lower --lr|the loss is .* at step .* lower --lr"
    ):
        training.train(config, digits, directory, context=CONTEXT)
    run = prepare_run(config, digits, directory, CONTEXT)
    state = build_state(run)
    Checkpointer(run, save_seconds=0).restore(state)
    assert all(value.isfinite().all() for value in state.model.parameters())


def test_less_than_a_batch_is_refused_and_nothing_is_written(
    digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="too few for one batch of 201"):
        training.train(make_config(batch_size=201), digits, tmp_path / "run", context=CONTEXT)
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_a_gpu_trains_like_the_cpu(digits: Dataset, tmp_path: Path) -> None:
    rows = []
    for name in ("cpu", "cuda"):
        config = make_config("adr+wa+awp", epochs=1)
        record = training.train(
            config, digits, tmp_path / name, context=Context(device=torch.device(name))
        )
        rows += [row.train_loss for row in record.rows()]
    assert rows[1] == pytest.approx(rows[0], rel=0.02)


def test_a_run_keeps_its_label_and_the_fingerprint_of_its_training_images(
    digits: Dataset, tmp_path: Path
) -> None:
    config = make_config(epochs=1)
    for name, label in ((run_name(config, "digits"), ""), ("lr0.02-s0", "lr0.02-s0")):
        record = training.train(config, digits, tmp_path / name, context=CONTEXT)
        checkpoint = checkpoints.load(tmp_path / name / checkpoints.LAST)
        for made in (record, checkpoint):
            assert made.label == label
            assert made.training_images_sha256 == digits.training_images_sha256 is not None
