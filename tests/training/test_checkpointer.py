"""A run that is killed or interrupted at any point ends as an uninterrupted one."""

import dataclasses
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from adrbench.checkpoints.restore import restore
from adrbench.checkpoints.settings_file import CONFIG
from adrbench.config.method import Weights
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError, CheckpointError, RecordError
from adrbench.results.history import Counts, HistoryRow
from adrbench.results.records import read_record
from adrbench.runtime import files
from adrbench.runtime.context import Context
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.training import checkpointer
from adrbench.training import loop as training
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import FILES, HISTORY, LOCK, Checkpointer
from adrbench.training.state import Run, TrainState, build_state, prepare_run
from logs import logged
from training_runs import CONTEXT, CPU, EPOCHS, assert_same_run, make_config, stable_history
from unreadable_files import UNREADABLE

STEPS = 3
TOTAL = EPOCHS * STEPS


class Killed(BaseException):
    """Ends a run without any of its cleanup, as SIGKILL would."""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with three batches an epoch."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200), test=whole.test.first(50))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    training.train(make_config(), digits, directory, context=CONTEXT)
    return directory


class Watch(NoCallbacks):
    """Calls `act` after step `at` of the run, counted from 1."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at = at
        self.act = act
        self.first_step = -1

    def begin(self, config: Any, steps_per_epoch: int, epoch: int, steps: int) -> None:
        self.first_step = (epoch - 1) * steps_per_epoch + steps

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        if (epoch - 1) * STEPS + step == self.at:
            self.act()


def kill() -> None:
    raise Killed


def kill_after_step(
    at: int, digits: Dataset, directory: Path, config: TrainConfig | None = None, **options: Any
) -> None:
    """Train, saving after every step, until the run is killed before it saves step `at`."""
    with pytest.raises(Killed):
        training.train(
            config or make_config(),
            digits,
            directory,
            context=CONTEXT,
            callbacks=Watch(at, kill),
            save_seconds=0,
            **options,
        )


def resume(directory: Path, digits: Dataset, *, expected: int | None = None) -> None:
    """Train again with the same arguments, and assert that it starts at the `expected` step."""
    watch = Watch(0, kill)
    training.train(make_config(), digits, directory, context=CONTEXT, callbacks=watch)
    if expected is not None:
        assert watch.first_step == expected


@pytest.mark.parametrize("at", range(1, TOTAL + 1))
def test_a_run_killed_after_any_step(
    at: int, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    """The run is saved after every step; only the step that was not saved is repeated."""
    directory = tmp_path / "run"
    kill_after_step(at, digits, directory)
    resume(directory, digits, expected=at - 1)
    assert_same_run(uninterrupted, directory)


@pytest.mark.parametrize("at", range(1, TOTAL + 1))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_interrupted_after_any_step(
    at: int, number: int, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    stop = StopRequest()

    def request() -> None:
        stop.number = number

    with pytest.raises(Interrupted) as caught:
        training.train(
            make_config(),
            digits,
            directory,
            context=Context(device=CPU, stop=stop),
            callbacks=Watch(at, request),
        )
    assert caught.value.number == number
    epochs_done, step = divmod(at - 1, STEPS)
    position = f"at epoch {epochs_done + 1} of {EPOCHS}, after {step + 1} of {STEPS} steps"
    assert caught.value.where == f"{position}; saved"
    resume(directory, digits, expected=at)
    assert_same_run(uninterrupted, directory)


def test_a_run_interrupted_during_its_validation(
    uninterrupted: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    validate, stop = training.validate, StopRequest()

    def interrupted(run: Run, state: TrainState, *rest: Any) -> dict[Weights, Counts]:
        if state.epochs_done == 1:
            signal.raise_signal(signal.SIGTERM)
        return validate(run, state, *rest)

    monkeypatch.setattr(training, "validate", interrupted)
    with (
        stop.handling_signals(),
        pytest.raises(Interrupted, match=r"^at epoch 2 of 3, before its validation; saved$"),
    ):
        training.train(make_config(), digits, directory, context=Context(device=CPU, stop=stop))
    monkeypatch.setattr(training, "validate", validate)
    resume(directory, digits, expected=2 * STEPS)
    assert_same_run(uninterrupted, directory)


def read_all(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def lose_lock(lose: Callable[[], None], directory: Path, digits: Dataset, **more: Any) -> None:
    """Train until `lose`, called after a few steps, has taken the lock away."""
    with pytest.raises(AdrbenchError, match=r"lock was removed or replaced, or its directory was"):
        training.train(
            make_config(),
            digits,
            directory,
            context=CONTEXT,
            callbacks=Watch(5, lose),
            save_seconds=0,
            **more,
        )


@pytest.mark.parametrize("record", [False, True])
def test_a_run_whose_lock_is_removed_writes_nothing_more(
    record: bool, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    """The lock of its directory or of its record, after which another process may take it."""
    directory, result = tmp_path / "run", tmp_path / "train-run.json"
    before: dict[Path, bytes] = {}

    def remove_lock() -> None:
        (tmp_path / ".train-run.lock" if record else directory / LOCK).unlink()
        before.update(read_all(directory))
        before.pop(directory / LOCK, None)

    lose_lock(remove_lock, directory, digits, record=result)
    assert read_all(directory) == before
    assert not result.exists()
    resume(directory, digits, expected=4)
    assert_same_run(uninterrupted, directory)


def test_a_run_whose_directory_is_replaced_writes_nothing_to_it(
    digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    kill_after_step(3, digits, tmp_path / "other", make_config(seed=1))
    other = read_all(tmp_path / "other")

    def replace_directory() -> None:
        directory.rename(tmp_path / "moved")
        shutil.copytree(tmp_path / "other", directory)

    lose_lock(replace_directory, directory, digits)
    assert list(read_all(directory).values()) == list(other.values())


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", FILES)
def test_a_run_with_what_is_no_file_of_a_possible_size_is_refused(
    name: str, kind: str, uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(uninterrupted, directory)
    (directory / name).unlink()
    UNREADABLE[kind](directory / name)
    kept = {
        path: path.read_bytes() for path in directory.iterdir() if path.name in {*FILES} - {name}
    }
    with pytest.raises(
        AdrbenchError, match=rf"{name} (is not a file|has .* bytes.*): move it away"
    ):
        training.train(make_config(), digits, directory, context=CONTEXT)
    assert kept == {path: path.read_bytes() for path in kept}
    assert not (directory / LOCK).exists()


def test_what_killed_writes_left_is_removed(digits: Dataset, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    kill_after_step(3, digits, directory)
    left = [directory / f".{name}.0123456789abcdef.tmp" for name in FILES]
    for path in left:
        path.write_bytes(b"half")
    kill_after_step(4, digits, directory)
    assert not any(path.exists() for path in left)


def kill_after_writes(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """Kill the run in place of the write after `allowed` ones."""
    real = files.write_atomically
    count = 0

    def write(path: Path, content: bytes) -> None:
        nonlocal count
        if count == allowed:
            raise Killed
        count += 1
        real(path, content)

    for module in (checkpointer, checkpoints):
        monkeypatch.setattr(module, "write_atomically", write)


@pytest.mark.parametrize("allowed", range(10))
def test_a_run_killed_between_any_two_writes(
    allowed: int,
    uninterrupted: Path,
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state, the best weights and the history are three files, written one after another."""
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_after_writes(patch, allowed)
        with pytest.raises(Killed):
            training.train(make_config(), digits, directory, context=CONTEXT)
    resume(directory, digits)
    assert_same_run(uninterrupted, directory)


def test_the_seconds_of_an_epoch_that_was_killed_twice_are_added_up(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    for at in (2, 3):
        kill_after_step(at, digits, directory, make_config(epochs=1))
        last = checkpoints.load(directory / checkpoints.LAST).training
        assert last is not None
        last["seconds"] += 100.0
        held = checkpoints.load(directory / checkpoints.LAST)
        checkpoints.save(directory / checkpoints.LAST, dataclasses.replace(held, training=last))
    record = training.train(make_config(epochs=1), digits, directory, context=CONTEXT)
    assert 200 < record.seconds < 260
    assert [session.first_step for session in record.sessions] == [0, 1, 2]
    assert {session.processes for session in record.sessions} == {1}


def test_weights_from_within_an_epoch_can_be_loaded_and_have_no_counts(
    digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    kill_after_step(5, digits, directory)
    last = checkpoints.load(directory / checkpoints.LAST)
    assert {snapshot.epoch for snapshot in last.snapshots.values()} == {1}
    assert last.snapshots["student"].counts is None
    model = restore(last, "average", directory)
    assert model(torch.rand(1, 1, 8, 8)).shape == (1, 10)


def start(digits: Dataset, directory: Path) -> tuple[Run, TrainState]:
    run = prepare_run(make_config(), digits, directory, CONTEXT)
    return run, build_state(run)


def test_a_state_of_an_early_version_is_resumed(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    """It has no losses, seconds or sessions, and rows without a criterion but with nulls.

    Its optimizer has settings, which are those of the configuration instead.
    """
    directory = tmp_path / "run"
    with pytest.raises(Killed):
        training.train(make_config(), digits, directory, context=CONTEXT, callbacks=Watch(4, kill))
    held = checkpoints.load(directory / checkpoints.LAST)
    assert held.training is not None
    (row,) = held.training["history"]
    del row["criterion"]
    momentum = {i: {"momentum_buffer": m} for i, m in enumerate(held.training["momentum"])}
    optimizer = {"state": momentum, "param_groups": [{"momentum": 0.5}]}
    early = {"optimizer": optimizer, "history": [row | {"share": None}]}
    checkpoints.save(directory / checkpoints.LAST, dataclasses.replace(held, training=early))
    resume(directory, digits, expected=STEPS)
    assert_same_run(uninterrupted, directory)


def test_a_save_is_due_after_a_given_time(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take ten seconds each on this clock, and every 25 seconds a save is due."""
    now = 0.0
    saved = []

    def save(path: Path, checkpoint: Checkpoint) -> None:
        assert checkpoint.training is not None
        saved.append((path.name, len(checkpoint.training["losses"])))

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(checkpoints, "save", save)
    run, state = start(digits, tmp_path)
    saver = Checkpointer(run, save_seconds=25.0)
    for _ in range(STEPS):
        state.losses.record(torch.tensor(1.0))
        now += 10.0
        saver.after_step(state)
    assert saved == [("last.pt", 3)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_never_saved(
    value: float, digits: Dataset, tmp_path: Path
) -> None:
    run, state = start(digits, tmp_path)
    state.losses.record(torch.tensor(value))
    saver = Checkpointer(run, save_seconds=0.0)
    with pytest.raises(
        AdrbenchError,
        match=r"the loss is (nan|inf) at step 1 of epoch 1 at learning rate 0\.05: nothing was "
        r"saved yet; start over with a lower --lr",
    ):
        saver.after_step(state)
    run, state = start(digits, tmp_path)
    next(state.model.parameters()).data[0] = value
    for _ in range(2):
        state.losses.record(torch.tensor(1.0))
    with pytest.raises(AdrbenchError, match=r"the weights are not finite after step 2 of epoch 1"):
        saver.after_step(state)
    run, state = start(digits, tmp_path)
    average = state.models()["average"]
    next(value for key, value in average.state_dict().items() if "running_var" in key)[0] = value
    state.losses.record(torch.tensor(1.0))
    with pytest.raises(AdrbenchError, match=r"the weights are not finite after step 1 of epoch 1"):
        Checkpointer(run, save_seconds=0.0).after_step(state)
    assert list(tmp_path.iterdir()) == []


def damage(directory: Path, name: str) -> None:
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: len(content) // 2])


def test_a_missing_history_is_restored_from_the_state(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(uninterrupted, directory)
    (directory / HISTORY).unlink()
    resume(directory, digits)
    assert stable_history(directory) == stable_history(uninterrupted)


@pytest.mark.parametrize(
    ("damage_run", "words"),
    [
        (lambda path: damage(path, "last.pt"), "last.pt is truncated or damaged"),
        (lambda path: damage(path, "best.pt"), "best.pt is truncated or damaged"),
        (lambda path: (path / "best.pt").unlink(), r"does not contain the \w+ of epoch \d"),
    ],
)
def test_a_damaged_run_is_not_resumed(
    damage_run: Callable[[Path], None], words: str, digits: Dataset, tmp_path: Path
) -> None:
    """At this learning rate the first epoch is the best, so its weights are in `best.pt` only."""
    directory = tmp_path / "run"
    config = make_config("at", lr=3.0, eps=0.01, alpha=0.01, milestones=(), epochs=3)
    kill_after_step(8, digits, directory, config)
    damage_run(directory)
    with pytest.raises(CheckpointError, match=words):
        training.train(config, digits, directory, context=CONTEXT)


def alter_row(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda training: training["history"][0].update(changes)


def alter_momentum(change: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def alter(training: dict[str, Any]) -> None:
        training["momentum"][0] = change(training["momentum"][0])

    return alter


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda training: training.pop("history"), "'history'"),
        (lambda training: training.update(history=3), "not iterable"),
        (lambda training: training["history"].append(training["history"][0]), r"not \[1, 1\]"),
        (
            lambda training: training["history"].pop(0),
            "its student weights are not those after 1 steps",
        ),
        (alter_row(epoch=2), r"epochs from 1 on, not \[2\]"),
        (alter_row(select_n=41), "the counts of epoch 1 are not those"),
        (alter_row(student_clean_correct=41), "clean_correct <= select_n, not"),
        (alter_row(student_robust_correct=-1), "should satisfy robust_correct <="),
        (alter_row(train_loss="low"), "field train_loss should be float"),
        (lambda training: training.update(losses=[1.0]), "its losses should be a list of float32"),
        (lambda training: training.update(losses=torch.ones(1, 1)), "its losses should be a list"),
        (lambda training: training.update(losses=torch.ones(9)), "finite numbers, at most 3"),
        (lambda training: training.update(losses=torch.tensor([math.nan])), "finite numbers"),
        (lambda training: training.update(seconds="long"), "seconds should be a number .* 'long'"),
        (lambda training: training.update(seconds=-1.0), "seconds should be a number .* -1"),
        (lambda training: training.update(sessions=[{}]), "field first_step is missing"),
        (lambda training: training.pop("momentum"), "'optimizer'"),
        (lambda training: training.update(momentum=3), "has no len"),
        (lambda training: training["momentum"].pop(3), "momentum of 11 parameters"),
        (alter_momentum(lambda held: held[:1]), "momentum of parameter 0 should be like"),
        (alter_momentum(Tensor.int), "momentum of parameter 0 should be like"),
        (alter_momentum(lambda held: held / 0), "momentum of parameter 0 is not finite"),
        (alter_momentum(lambda held: "m"), "momentum of parameter 0 should be like"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_changed(
    alter: Callable[[dict[str, Any]], None], words: str, digits: Dataset, tmp_path: Path
) -> None:
    """The first epoch is finished, and one step of the second one."""
    directory = tmp_path / "run"
    kill_after_step(STEPS + 2, digits, directory)
    held = checkpoints.load(directory / checkpoints.LAST)
    assert held.training is not None
    alter(held.training)
    checkpoints.save(directory / checkpoints.LAST, held)
    (directory / CONFIG).unlink()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(CheckpointError, match=words) as caught:
        training.train(make_config(), digits, directory, context=CONTEXT)
    assert "--force to start over" in str(caught.value)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [{"steps": 999}, {"epoch": 2}, {"counts": Counts(clean_correct=1, robust_correct=1)}],
)
def test_weights_that_contradict_the_state_are_refused(
    change: dict[str, Any], digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    training.train(make_config("at", epochs=1), digits, directory, context=CONTEXT)
    held = checkpoints.load(directory / checkpoints.LAST)
    student = dataclasses.replace(held.snapshots["student"], **change)
    altered = dataclasses.replace(held, snapshots={"student": student})
    checkpoints.save(directory / checkpoints.LAST, altered)
    with pytest.raises(CheckpointError, match="its student weights are not those after 3 steps"):
        training.train(make_config("at", epochs=1), digits, directory, context=CONTEXT)


def make_early(directory: Path, record: Path, digits: Dataset) -> None:
    """Train a run, and take from its files the id that runs of early versions do not have."""
    config = make_config("at", epochs=1)
    training.train(config, digits, directory, context=CONTEXT, record=record)
    for name in (checkpoints.BEST, checkpoints.LAST):
        held = checkpoints.load(directory / name)
        checkpoints.save(directory / name, dataclasses.replace(held, run_id=""))
    for path in (record, directory / CONFIG):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": ""}))


def test_records_of_two_runs_of_an_early_version_are_told_apart_by_their_rows(
    digits: Dataset, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        make_early(tmp_path / name, tmp_path / f"{name}.json", digits)
    config, record = make_config("at", epochs=1), tmp_path / "one.json"
    training.train(config, digits, tmp_path / "one", context=CONTEXT, record=record)
    shutil.copy(tmp_path / "other.json", record)
    before = record.read_bytes()
    with pytest.raises(RecordError, match="is the record of another run with the same settings"):
        training.train(config, digits, tmp_path / "one", context=CONTEXT, record=record)
    assert record.read_bytes() == before


def test_a_finished_run_without_its_best_weights_is_not_changed(
    digits: Dataset, tmp_path: Path
) -> None:
    """The best epoch is the first: the state, which is the last epoch, does not hold it."""
    directory = tmp_path / "run"
    config = make_config("at", lr=3.0, eps=0.01, alpha=0.01, milestones=(), epochs=3)
    training.train(config, digits, directory, context=CONTEXT)
    (directory / checkpoints.BEST).unlink()
    (directory / HISTORY).unlink()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(CheckpointError, match=r"best\.pt does not contain the student of epoch 1"):
        training.train(config, digits, directory, context=CONTEXT)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_weights_of_the_best_epoch_with_other_counts_are_refused(
    digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    config = make_config("at", lr=3.0, eps=0.01, alpha=0.01, milestones=(), epochs=3)
    training.train(config, digits, directory, context=CONTEXT)
    best = checkpoints.load(directory / checkpoints.BEST)
    held = best.snapshots["student"]
    assert held.counts is not None
    counts = dataclasses.replace(held.counts, clean_correct=held.counts.clean_correct + 1)
    snapshots = {"student": dataclasses.replace(held, counts=counts)}
    checkpoints.save(directory / checkpoints.BEST, dataclasses.replace(best, snapshots=snapshots))
    with pytest.raises(CheckpointError, match="does not contain the student of epoch 1"):
        training.train(config, digits, directory, context=CONTEXT)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("force", [False, True])
def test_something_else_in_place_of_a_file_is_not_touched(
    name: str,
    make: Callable[[Path], None],
    force: bool,
    digits: Dataset,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(uninterrupted, directory)
    (directory / name).unlink()
    make(directory / name)
    with pytest.raises(AdrbenchError, match=rf"{name} is not a file: move it away"):
        training.train(make_config(), digits, directory, context=CONTEXT, force=force)
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", [checkpoints.BEST, HISTORY])
def test_what_follows_from_a_state_is_not_replaced_without_one(
    name: str, digits: Dataset, uninterrupted: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    shutil.copy(uninterrupted / name, directory)
    with pytest.raises(AdrbenchError, match=rf"contains {name} but no last\.pt to resume from"):
        training.train(make_config(), digits, directory, context=CONTEXT)
    assert [path.name for path in directory.iterdir()] == [name]


def test_a_record_of_a_run_whose_files_are_gone_is_not_replaced(
    digits: Dataset, tmp_path: Path
) -> None:
    directory, record = tmp_path / "run", tmp_path / "record.json"
    config = make_config("at", epochs=1)
    training.train(config, digits, directory, context=CONTEXT, record=record)
    shutil.rmtree(directory)
    before = record.read_bytes()
    with pytest.raises(
        RecordError, match=r"is the record of another run with .* --force to replace"
    ):
        training.train(config, digits, directory, context=CONTEXT, record=record)
    assert record.read_bytes() == before
    training.train(config, digits, directory, context=CONTEXT, record=record, force=True)
    assert record.read_bytes() != before


def test_other_selection_images_are_refused(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(uninterrupted, directory)
    other = dataclasses.replace(digits, val=digits.val.take(torch.arange(39, -1, -1)))
    with pytest.raises(
        AdrbenchError,
        match=r"run chose its best epoch on other images than those now in digits \(SHA-256 \w{8}, "
        r"not \w{8}\): restore the data",
    ):
        training.train(make_config(), other, directory, context=CONTEXT)


def test_a_directory_in_use_is_not_changed(digits: Dataset, tmp_path: Path) -> None:
    directory = tmp_path / "run"

    class Second(NoCallbacks):
        def epoch(self, row: HistoryRow) -> None:
            before = (directory / checkpoints.LAST).read_bytes()
            with pytest.raises(AdrbenchError, match=r"is being written by process .* --name"):
                training.train(make_config(), digits, directory, context=CONTEXT, force=True)
            assert (directory / checkpoints.LAST).read_bytes() == before

    training.train(make_config(), digits, directory, context=CONTEXT, callbacks=Second())
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)


def test_the_mean_loss_of_a_resumed_epoch_includes_its_earlier_steps(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    kill_after_step(3, digits, directory)
    held = checkpoints.load(directory / checkpoints.LAST).training
    assert held is not None
    assert len(held["losses"]) == 2
    resume(directory, digits)
    ours, theirs = (
        json.loads((path / HISTORY).read_text().splitlines()[0])["train_loss"]
        for path in (directory, uninterrupted)
    )
    assert ours == theirs


def test_a_full_disk_while_resuming_does_not_suggest_starting_over(
    uninterrupted: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_after_writes(patch, 2)  # the configuration and the state, not the best weights
        with pytest.raises(Killed):
            training.train(make_config(), digits, directory, context=CONTEXT)

    def full(path: Path, content: bytes) -> None:
        raise AdrbenchError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_atomically", full)
        with pytest.raises(AdrbenchError, match=r"cannot write .*best\.pt: No space") as caught:
            training.train(make_config(), digits, directory, context=CONTEXT)
        assert "--force" not in str(caught.value)
    resume(directory, digits, expected=STEPS)
    assert_same_run(uninterrupted, directory)


def test_running_out_of_memory_while_resuming_is_reported_as_such(
    uninterrupted: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(state: TrainState, saved: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(TrainState, "load_state_dict", fail)
    with pytest.raises(torch.OutOfMemoryError):
        training.train(make_config(), digits, uninterrupted, context=CONTEXT)


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_forced_run_that_is_killed_never_mixes_two_runs(
    kept: int, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some files of the former run are removed: it can be forced again but not resumed."""
    directory, other = tmp_path / "run", make_config("at", epochs=1, lr=0.01)
    training.train(make_config(), digits, directory, context=CONTEXT)
    for name in list(reversed(FILES))[: len(FILES) - kept]:
        (directory / name).unlink()
    with pytest.raises(AdrbenchError, match=r"contains a run with --method adr\+wa\+awp, not at"):
        training.train(other, digits, directory, context=CONTEXT)
    training.train(other, digits, directory, context=CONTEXT, force=True)
    assert checkpoints.load(directory / checkpoints.BEST).config.lr == 0.01


def test_best_weights_without_a_state_are_refused(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    shutil.copy(uninterrupted / checkpoints.BEST, directory)
    with pytest.raises(AdrbenchError, match=r"contains best\.pt but no last\.pt to resume from"):
        training.train(make_config("at"), digits, directory, context=CONTEXT)


@pytest.mark.usefixtures("nothing_logged")
def test_a_stop_requested_in_the_last_validation_is_ignored(
    digits: Dataset, tmp_path: Path
) -> None:
    """The run is finished by then, except for its record."""
    stop, path = StopRequest(), tmp_path / "record.json"
    run_validate = training.validate

    def validate(run: Run, state: TrainState, *rest: Any) -> dict[Weights, Counts]:
        counts = run_validate(run, state, *rest)
        if state.epochs_done + 1 == EPOCHS:
            stop.number = signal.SIGTERM
        return counts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "validate", validate)
        record = training.train(
            make_config(),
            digits,
            tmp_path / "run",
            context=Context(device=CPU, stop=stop),
            record=path,
        )
    assert read_record(path) == record


def test_force_removes_the_record_of_the_former_run(
    uninterrupted: Path, digits: Dataset, tmp_path: Path
) -> None:
    """A forced run that is killed does not leave a record that does not fit it."""
    directory, path = tmp_path / "run", tmp_path / "record.json"
    training.train(make_config(epochs=1), digits, directory, context=CONTEXT, record=path)
    former = path.read_bytes()
    kill_after_step(5, digits, directory, record=path, force=True)
    assert not path.exists()
    path.write_bytes(former)
    with pytest.raises(RecordError, match="is the record of another run"):
        training.train(make_config(), digits, directory, context=CONTEXT, record=path)
    path.unlink()
    record = training.train(make_config(), digits, directory, context=CONTEXT, record=path)
    assert read_record(path) == record
    held = path.read_bytes()
    training.train(make_config(), digits, directory, context=CONTEXT, record=path)
    assert path.read_bytes() == held, "the record of a finished run is not rewritten"


def test_resuming_on_another_device_is_a_warning(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after_step(2, digits, tmp_path)
    monkeypatch.setattr(training, "describe_device", lambda device: "another processor")
    with logged() as messages:
        training.train(make_config(), digits, tmp_path, context=CONTEXT)
    assert any("device now: another processor, before: " in text for text in messages)
