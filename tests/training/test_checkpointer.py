"""A run that is killed or stopped anywhere ends as one that was not."""

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError, CheckpointError, RecordError
from adrbench.results.records import read_record
from adrbench.runtime import files
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.training import loop as training
from adrbench.training import resuming, saving
from adrbench.training import state as runs
from adrbench.training.state import Run
from logs import logged
from training_runs import CPU, EPOCHS, assert_same_run, make_config, stable_history

STEPS = 3
TOTAL = EPOCHS * STEPS


class PulledPlug(BaseException):
    """Nothing of the process goes on after this, as after SIGKILL."""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Return digits with three batches an epoch."""
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200), test=whole.test.first(50))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    training.train(make_config(), digits, directory, device=CPU)
    return directory


class Watch(training.NoCallbacks):
    """Does something once step `at` of the run, counted from 1, is taken."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at = at
        self.act = act
        self.first_step = -1

    def begin(self, config: Any, steps_per_epoch: int, epoch: int, steps: int) -> None:
        self.first_step = (epoch - 1) * steps_per_epoch + steps

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        if (epoch - 1) * STEPS + step == self.at:
            self.act()


def pull() -> None:
    raise PulledPlug


def go_on(directory: Path, digits: Dataset, *, expected: int | None = None) -> None:
    """Give the same command again, and hold that it begins at the `expected` step."""
    watch = Watch(0, pull)
    training.train(make_config(), digits, directory, device=CPU, callbacks=watch)
    if expected is not None:
        assert watch.first_step == expected


@pytest.mark.parametrize("at", range(1, TOTAL + 1))
def test_a_run_killed_after_any_step(
    at: int, undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    """Saved after every step: the one that was killed before it was saved is taken again."""
    directory = tmp_path / "run"
    with pytest.raises(PulledPlug):
        training.train(
            make_config(),
            digits,
            directory,
            device=CPU,
            callbacks=Watch(at, pull),
            save_seconds=0,
        )
    go_on(directory, digits, expected=at - 1)
    assert_same_run(undisturbed, directory)


@pytest.mark.parametrize("at", range(1, TOTAL + 1))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_asked_to_stop_after_any_step(
    at: int, number: int, undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    stop = StopRequest()

    def ask() -> None:
        stop.number = number

    with pytest.raises(Interrupted) as caught:
        training.train(
            make_config(), digits, directory, device=CPU, callbacks=Watch(at, ask), stop=stop
        )
    assert caught.value.number == number
    assert f"run is saved after step {(at - 1) % STEPS + 1} of epoch" in caught.value.where
    go_on(directory, digits, expected=at)
    assert_same_run(undisturbed, directory)


def test_a_run_stopped_while_it_validates(
    undisturbed: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    validate, stop = training.validate, StopRequest()

    def stopped(run: Run) -> dict[str, Any]:
        if run.epochs_done == 1:
            stop.handle(signal.SIGTERM, None)
        return validate(run)

    monkeypatch.setattr(training, "validate", stopped)
    with pytest.raises(Interrupted, match="is saved before the validation of epoch 2"):
        training.train(make_config(), digits, directory, device=CPU, stop=stop)
    monkeypatch.setattr(training, "validate", validate)
    go_on(directory, digits, expected=2 * STEPS)
    assert_same_run(undisturbed, directory)


def writes(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """Pull the plug instead of the write after `allowed` ones."""
    real = files.write_atomically
    count = 0

    def write(path: Path, content: bytes) -> None:
        nonlocal count
        if count == allowed:
            raise PulledPlug
        count += 1
        real(path, content)

    for module in (saving, checkpoints, training):
        monkeypatch.setattr(module, "write_atomically", write)


@pytest.mark.parametrize("allowed", range(10))
def test_a_run_killed_between_any_two_writes(
    allowed: int,
    undisturbed: Path,
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state, the best weights and the history are three files, of which one comes first."""
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        writes(patch, allowed)
        with pytest.raises(PulledPlug):
            training.train(make_config(), digits, directory, device=CPU)
    go_on(directory, digits)
    assert_same_run(undisturbed, directory)


def test_a_run_killed_twice_in_one_epoch_adds_up_its_seconds(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    for at in (2, 3):
        with pytest.raises(PulledPlug):
            training.train(
                make_config(epochs=1),
                digits,
                directory,
                device=CPU,
                callbacks=Watch(at, pull),
                save_seconds=0,
            )
        last = checkpoints.load(directory / checkpoints.LAST).training
        assert last is not None
        last["seconds"] += 100.0
        held = checkpoints.load(directory / checkpoints.LAST)
        checkpoints.save(directory / checkpoints.LAST, dataclasses.replace(held, training=last))
    record = training.train(make_config(epochs=1), digits, directory, device=CPU)
    assert 200 < record.seconds < 260
    assert [session.first_step for session in record.sessions] == [0, 1, 2]
    assert {session.processes for session in record.sessions} == {1}


def test_a_state_within_an_epoch_can_be_loaded_and_has_no_counts(
    digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(PulledPlug):
        training.train(
            make_config(), digits, directory, device=CPU, callbacks=Watch(5, pull), save_seconds=0
        )
    last = checkpoints.load(directory / checkpoints.LAST)
    assert {snapshot.epoch for snapshot in last.snapshots.values()} == {1}
    assert last.snapshots["student"].clean_correct is None
    model = checkpoints.restore(last, "average", directory)
    assert model(torch.rand(1, 1, 8, 8)).shape == (1, 10)


def test_saving_is_due_by_the_clock(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps last ten seconds each by this clock, and every 25 seconds a save is due."""
    now = 0.0
    saved = []

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(saving, "save", lambda run: saved.append(run.losses.recorded))
    run = runs.prepare(make_config(), digits, tmp_path, CPU)
    saver = saving.Saver(run, 25.0, StopRequest())
    for _ in range(STEPS):
        run.losses.record(torch.tensor(1.0))
        now += 10.0
        saver.after_step()
    assert saved == [3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_never_saved(
    value: float, digits: Dataset, tmp_path: Path
) -> None:
    run = runs.prepare(make_config(), digits, tmp_path, CPU)
    run.losses.record(torch.tensor(value))
    saver = saving.Saver(run, 0.0, StopRequest())
    with pytest.raises(
        AdrbenchError,
        match=r"the loss is (nan|inf) at step 1 of epoch 1 at learning rate 0\.05: nothing was "
        r"saved yet; start over with a lower --lr",
    ):
        saver.after_step()
    run = runs.prepare(make_config(), digits, tmp_path, CPU)
    saver = saving.Saver(run, 0.0, StopRequest())
    next(run.model.parameters()).data[0] = value
    for _ in range(2):
        run.losses.record(torch.tensor(1.0))
    with pytest.raises(AdrbenchError, match=r"the weights are not finite after step 2 of epoch 1"):
        saver.after_step()
    assert list(tmp_path.iterdir()) == []


def damage(directory: Path, name: str) -> None:
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: len(content) // 2])


def test_lost_files_that_follow_from_the_state_are_made_again(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    (directory / saving.HISTORY).unlink()
    go_on(directory, digits)
    assert stable_history(directory) == stable_history(undisturbed)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: damage(path, "last.pt"), "last.pt is truncated or damaged"),
        (lambda path: damage(path, "best.pt"), "best.pt is truncated or damaged"),
        (lambda path: (path / "best.pt").unlink(), r"does not hold the \w+ of epoch \d"),
    ],
)
def test_a_state_that_cannot_be_gone_on_with(
    spoil: Callable[[Path], None], words: str, digits: Dataset, tmp_path: Path
) -> None:
    """The learning rate of the second epoch spoils what the first has learned, which is best."""
    directory = tmp_path / "run"
    config = make_config("at", lr=3.0, eps=0.01, alpha=0.01, milestones=(), epochs=3)
    with pytest.raises(PulledPlug):
        training.train(
            config, digits, directory, device=CPU, callbacks=Watch(8, pull), save_seconds=0
        )
    spoil(directory)
    with pytest.raises(CheckpointError, match=words):
        training.train(config, digits, directory, device=CPU)


def test_other_images_to_choose_by_are_refused(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    other = dataclasses.replace(digits, val=digits.val.take(torch.arange(39, -1, -1)))
    with pytest.raises(
        AdrbenchError,
        match=r"run chose its best epoch on other images than digits holds now \(SHA-256 \w{8}, "
        r"not \w{8}\): bring the data back",
    ):
        training.train(make_config(), other, directory, device=CPU)


def test_a_directory_in_use_is_left_alone(digits: Dataset, tmp_path: Path) -> None:
    directory = tmp_path / "run"

    class Second(training.NoCallbacks):
        def epoch(self, row: dict[str, Any]) -> None:
            before = (directory / checkpoints.LAST).read_bytes()
            with pytest.raises(AdrbenchError, match=r"is being written by process .* --name"):
                training.train(make_config(), digits, directory, device=CPU, force=True)
            assert (directory / checkpoints.LAST).read_bytes() == before

    training.train(make_config(), digits, directory, device=CPU, callbacks=Second())
    assert sorted(path.name for path in directory.iterdir()) == sorted(saving.FILES)


def test_losses_of_a_resumed_epoch_count_into_its_mean(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(PulledPlug):
        training.train(
            make_config(), digits, directory, device=CPU, callbacks=Watch(3, pull), save_seconds=0
        )
    held = checkpoints.load(directory / checkpoints.LAST).training
    assert held is not None
    assert len(held["losses"]) == 2
    go_on(directory, digits)
    ours, theirs = (
        json.loads((path / saving.HISTORY).read_text().splitlines()[0])["train_loss"]
        for path in (directory, undisturbed)
    )
    assert ours == theirs


def test_a_disk_that_is_full_while_a_run_is_taken_up_is_not_the_runs_fault(
    undisturbed: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        writes(patch, 2)  # the configuration and the state, not the best weights
        with pytest.raises(PulledPlug):
            training.train(make_config(), digits, directory, device=CPU)

    def full(path: Path, content: bytes) -> None:
        raise AdrbenchError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_atomically", full)
        with pytest.raises(AdrbenchError, match=r"cannot write .*best\.pt: No space") as caught:
            training.train(make_config(), digits, directory, device=CPU)
        assert "--force" not in str(caught.value)
    go_on(directory, digits, expected=STEPS)
    assert_same_run(undisturbed, directory)


def test_memory_that_runs_out_while_a_run_is_taken_up_is_not_the_runs_fault(
    undisturbed: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Run, last: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(resuming, "put_back", fail)
    with pytest.raises(torch.OutOfMemoryError):
        training.train(make_config(), digits, undisturbed, device=CPU)


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_start_over_that_is_killed_never_mixes_two_runs(
    kept: int, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the former run's files some are gone: it can be forced again, but not gone on with."""
    directory, other = tmp_path / "run", make_config("at", epochs=1, lr=0.01)
    training.train(make_config(), digits, directory, device=CPU)
    for name in list(reversed(saving.FILES))[: len(saving.FILES) - kept]:
        (directory / name).unlink()
    with pytest.raises(AdrbenchError, match=r"holds a run with --method adr\+wa\+awp, not at"):
        training.train(other, digits, directory, device=CPU)
    training.train(other, digits, directory, device=CPU, force=True)
    assert checkpoints.load(directory / checkpoints.BEST).config.lr == 0.01


def test_the_best_weights_of_another_run_are_never_taken_up(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    shutil.copy(undisturbed / checkpoints.BEST, directory)
    with pytest.raises(AdrbenchError, match=r"holds best\.pt but no last\.pt to go on from"):
        training.train(make_config("at"), digits, directory, device=CPU)


@pytest.mark.usefixtures("nothing_logged")
def test_a_request_to_stop_that_comes_at_the_end_is_too_late(
    digits: Dataset, tmp_path: Path
) -> None:
    """The last epoch is saved by then, and the record is all that is left to write."""
    stop, path = StopRequest(), tmp_path / "record.json"
    run_validate = training.validate

    def validate(run: Run) -> dict[str, Any]:
        counts = run_validate(run)
        if run.epochs_done + 1 == EPOCHS:
            stop._is_deferred = True
            stop.number = signal.SIGTERM
        return counts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "validate", validate)
        record = training.train(
            make_config(),
            digits,
            tmp_path / "run",
            device=CPU,
            stop=stop,
            record=path,
        )
    assert read_record(path) == record


def test_the_record_of_a_former_run_goes_with_it(
    undisturbed: Path, digits: Dataset, tmp_path: Path
) -> None:
    """Started over and killed, the run goes on without the record that does not fit it."""
    directory, path = tmp_path / "run", tmp_path / "record.json"
    training.train(make_config(epochs=1), digits, directory, device=CPU, record=path)
    former = path.read_bytes()
    with pytest.raises(PulledPlug):
        training.train(
            make_config(),
            digits,
            directory,
            device=CPU,
            record=path,
            force=True,
            callbacks=Watch(5, pull),
            save_seconds=0,
        )
    assert not path.exists()
    path.write_bytes(former)
    with pytest.raises(RecordError, match="is the record of another run"):
        training.train(make_config(), digits, directory, device=CPU, record=path)
    path.unlink()
    record = training.train(make_config(), digits, directory, device=CPU, record=path)
    assert read_record(path) == record
    held = path.read_bytes()
    training.train(make_config(), digits, directory, device=CPU, record=path)
    assert path.read_bytes() == held, "a finished run's record is left alone"


def test_going_on_elsewhere_is_said(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PulledPlug):
        training.train(
            make_config(),
            digits,
            tmp_path,
            device=CPU,
            callbacks=Watch(2, pull),
            save_seconds=0,
        )
    monkeypatch.setattr(training, "describe_device", lambda device: "another processor")
    with logged() as messages:
        training.train(make_config(), digits, tmp_path, device=CPU)
    assert any("device now: another processor, before: " in text for text in messages)
