"""Files of two runs put together: one sentence, or bitwise the results of the right run."""

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from adrbench.checkpoints.format import BEST, LAST
from adrbench.checkpoints.settings_file import CONFIG
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError
from adrbench.results.records import TrainRecord, read_record
from adrbench.training import loop as training
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import HISTORY
from messages import assert_one_line
from training_runs import CONTEXT, assert_same_run, make_config, stable_rows

RECORD = "record.json"
FILES = (LAST, BEST, HISTORY, CONFIG, RECORD)
EPOCHS, STEPS = 2, 2
#: The number of steps after which a run was killed: within an epoch, at the end of one, finished.
KILLED_AFTER = (1, STEPS, STEPS + 1, EPOCHS * STEPS)


class Killed(BaseException):
    """Ends a run without any of its cleanup, as SIGKILL would."""


class KillAfter(NoCallbacks):
    """Ends a run once `steps` steps of it are saved."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        if (epoch - 1) * STEPS + step > self.steps:
            raise Killed


@dataclass(frozen=True)
class Made:
    """A run: its settings, its data, and a copy of its directory after some numbers of steps."""

    config: TrainConfig
    dataset: Dataset
    copies: dict[int, Path]

    def train(self, directory: Path, *, force: bool = False) -> TrainRecord:
        record = directory / RECORD
        return training.train(
            self.config, self.dataset, directory, context=CONTEXT, force=force, record=record
        )


def make_run(place: Path, config: TrainConfig, dataset: Dataset) -> Made:
    made = Made(config, dataset, {steps: place / str(steps) / "run" for steps in KILLED_AFTER})
    for steps, directory in made.copies.items():
        if steps == EPOCHS * STEPS:
            made.train(directory)
            continue
        with pytest.raises(Killed):
            training.train(
                config,
                dataset,
                directory,
                context=CONTEXT,
                callbacks=KillAfter(steps),
                save_seconds=0,
                record=directory / RECORD,
            )
    return made


def settings(**changes: Any) -> TrainConfig:
    return make_config("adr+wa", epochs=EPOCHS, steps=1, **changes)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(2 * 64), test=whole.test.first(50))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Made:
    return make_run(tmp_path_factory.mktemp("own"), settings(), digits)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> dict[str, Made]:
    """Return runs that differ from `own` in one thing each, or in nothing but the time."""
    flipped = digits.train.take(torch.arange(2 * 64 - 1, -1, -1))
    turned = digits.val.take(torch.arange(39, -1, -1))
    changed = {
        "seed": (settings(seed=5), digits),
        "setting": (settings(lr=0.02), digits),
        "method": (make_config("adr", epochs=EPOCHS, steps=1), digits),
        "training images": (settings(), dataclasses.replace(digits, train=flipped)),
        "images that choose": (settings(), dataclasses.replace(digits, val=turned)),
        "time": (settings(), digits),
    }
    place = tmp_path_factory.mktemp("others")
    return {what: make_run(place / what, *made) for what, made in changed.items()}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def mixtures() -> Iterator[tuple[str, int, int, tuple[str, ...]]]:
    """Yield what differs, the steps of both runs, and which files are taken from the other one."""
    swaps = [*((name,) for name in FILES), *itertools.combinations(FILES, 2), FILES]
    for what in ("seed", "setting", "method", "training images", "images that choose", "time"):
        for steps, others_steps in itertools.product(KILLED_AFTER, KILLED_AFTER):
            for files in swaps:
                yield what, steps, others_steps, files


def mix(own: Path, other: Path, files: tuple[str, ...], directory: Path) -> None:
    shutil.copytree(own, directory)
    for name in files:
        (directory / name).unlink(missing_ok=True)
        if (other / name).exists():
            shutil.copy(other / name, directory / name)


def check(own: Made, other: Made, case: tuple[str, int, int, tuple[str, ...]], place: Path) -> bool:
    """Resume a mixture of two runs; return whether it was refused."""
    _, steps, others_steps, files = case
    directory = place / "run"
    mix(own.copies[steps], other.copies[others_steps], files, directory)
    before = contents(directory)
    try:
        record = own.train(directory)
    except AdrbenchError as error:
        assert_one_line(str(error))
        assert contents(directory) == before
        return True
    finished = own.copies[EPOCHS * STEPS]
    assert_same_run(finished, directory)
    written = read_own(directory)
    assert (written.run_id, written.config, written.history) == (
        record.run_id,
        record.config,
        record.history,
    )
    assert stable_rows(written.history) == stable_rows(read_own(finished).history)
    return False


def read_own(directory: Path) -> TrainRecord:
    record = read_record(directory / RECORD)
    assert isinstance(record, TrainRecord)
    return record


#: The part of the slow cases that is tried; all 1,416 take three minutes.
EVERY = 7
ALL = list(mixtures())
#: One file, from a run killed after as many steps; the others are slow to try.
SOME = [case for case in ALL if case[1] == case[2] and len(case[3]) == 1]


@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_file_of_another_run(
    case: tuple[str, int, int, tuple[str, ...]],
    own: Made,
    others: dict[str, Made],
    tmp_path: Path,
) -> None:
    refused = check(own, others[case[0]], case, tmp_path)
    what, steps, _, (name,) = case
    has_file = (own.copies[steps] / name).exists() or (others[what].copies[steps] / name).exists()
    assert refused == has_file


@pytest.mark.slow
@pytest.mark.parametrize("what", sorted({case[0] for case in ALL}))
def test_any_files_of_two_runs(
    what: str, own: Made, others: dict[str, Made], tmp_path: Path
) -> None:
    cases = [case for case in ALL if case[0] == what and case not in SOME][::EVERY]
    refused = 0
    for number, case in enumerate(cases):
        refused += check(own, others[what], case, tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number))
    assert 0 < refused < len(cases)


@pytest.mark.parametrize("name", FILES)
def test_force_replaces_a_file_of_another_run(
    name: str, own: Made, others: dict[str, Made], tmp_path: Path
) -> None:
    steps = EPOCHS * STEPS
    directory = tmp_path / "run"
    mix(own.copies[steps], others["seed"].copies[steps], (name,), directory)
    with pytest.raises(AdrbenchError, match="--force"):
        own.train(directory)
    own.train(directory, force=True)
    assert_same_run(own.copies[steps], directory)
    assert read_own(directory).run_id != read_own(own.copies[steps]).run_id
