"""`train --dry-run`: every setting with its source, in 80 columns, and nothing done."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from adrbench.cli.dry_run import is_cifar_in
from adrbench.cli.existing_run import describe_existing
from adrbench.config.presets import Source
from adrbench.config.settings import TrainConfig
from adrbench.data import Images
from adrbench.models.small_cnn import SmallCNN
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import Checkpointer
from adrbench.training.plan import RunPlaces, make_plan
from adrbench.training.run import run_plan
from adrbench.training.state import TrainState
from runner import QUICK, command, succeed, tree
from training_runs import CONTEXT, make_config

METHODS = ("at", "standard", "trades+adr+wa+awp", "adr")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(output: str) -> dict[str, tuple[str, str]]:
    """Return the table of a dry run: the value and the source of each setting."""
    found = re.findall(r"^(DATASET|--\S+)  +(\S.*?)  +(\S.*)$", output, flags=re.MULTILINE)
    return {name: (value, source) for name, value, source in found}


def test_values_come_with_their_sources() -> None:
    line = ("train", "digits", "--method", "adr+awp", "--eps", "8/255", "--lr", "0.2", "--dry-run")
    outcome = succeed(*line)
    shown = rows(outcome.out)
    assert outcome.err == ""
    expected = {
        "DATASET": ("digits", "given"),
        "--method": ("adr+awp", "given"),
        "--arch": ("small-cnn", "default"),
        "--eps": ("8/255", "given"),
        "--lr": ("0.2", "given"),
        "--epochs": ("30", "ours for digits"),
        "--milestones": ("0.5,0.75", "published ADR"),
        "--nesterov": ("no", "implied by awp"),
        "--temperature-high": ("1", "ours for ADR"),
        "--awp-rho": ("0.005", "published ADR"),
        "--val-size": ("143", "default"),
        "--split-seed": ("that of --seed", "default"),
    }
    assert {name: shown.get(name) for name in expected} == expected


def test_what_is_given_with_its_default_is_given() -> None:
    line = ("train", "digits", "--method", "adr+wa+awp", "--activation", "relu", "--norm", "Linf")
    shown = rows(succeed(*line, "--seed", "0", "--epochs", "30", "--dry-run").out)
    given = {name for name, (_, source) in shown.items() if source == "given"}
    assert given == {"DATASET", "--method", "--activation", "--norm", "--seed", "--epochs"}


@pytest.mark.parametrize("method", METHODS)
def test_the_values_are_those_of_the_run(method: str) -> None:
    line = ("train", "digits", "--method", method, "--name", "run", *QUICK)
    shown = rows(succeed(*line, "--dry-run").out)
    succeed(*line)
    config = json.loads(Path("checkpoints/run/config.json").read_text())
    del config["run_id"]
    values = TrainConfig.from_json(config).values()
    not_shown = {"dataset", "preset"}
    assert shown.keys() == {
        "DATASET",
        *(f"--{name.replace('_', '-')}" for name in values.keys() - not_shown),
    }
    for name in ("epochs", "batch_size", "steps", "val_size", "seed"):
        assert shown[f"--{name.replace('_', '-')}"][0] == str(values[name])


@pytest.mark.parametrize("line", [(), ("--norm", "L2", "--arch", "wrn-10-1", "--split-seed", "3")])
def test_the_size_of_the_run_is_shown_in_80_columns(line: tuple[str, ...]) -> None:
    """1,294 images in batches of 64 are 20 full steps an epoch."""
    out = succeed("train", "digits", "--name", "a-run-" + 50 * "x", "--dry-run", *line).out
    assert max(map(len, out.splitlines())) <= 80
    assert "images      1,294 for training; 143 for validation" in out
    assert "steps       20 per epoch, 600 in all" in out
    assert "components  objective at, targets adr, averaging wa, perturbation awp" in out
    if not line:
        assert "network     small-cnn, 24,058 parameters" in out
    assert "\ndevice      " in out


def test_nothing_is_written(empty: Path) -> None:
    succeed("train", "digits", "--dry-run", "--force")
    assert tree(empty) == {}


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_missing_images_are_not_downloaded(
    dataset: str, classes: int, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only their number and shape matter: 49,000 images in batches of 128 are 382 full steps."""
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", Mock(side_effect=AssertionError))
    outcome = succeed("train", dataset, "--arch", "small-cnn", "--dry-run")
    assert outcome.lines == []
    assert outcome.notes == [
        f"note: {dataset} is not in data and is not downloaded for --dry-run, which assumes its "
        "published sizes."
    ]
    out = outcome.out
    assert "images      49,000 for training; 1,000 for validation" in out
    assert "10,000 for testing" in out
    assert "steps       382 per epoch, 76,400 in all" in out
    num_parameters = sum(map(torch.numel, SmallCNN(classes, 3).parameters()))
    assert f"network     small-cnn, {num_parameters:,} parameters" in out
    assert tree(empty) == {}
    refused = command("train", dataset, "--val-size", "50000", "--dry-run")
    assert "the validation size is 50000" in refused.err


def test_images_that_are_there_are_read(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [("batch", "9dd4e461268c8034f5c8564e155c67a6")]  # the MD5 of "x"
    monkeypatch.setattr("torchvision.datasets.CIFAR10.train_list", files)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.test_list", files)
    place = empty / "cifar-10-batches-py"
    assert not is_cifar_in(empty, "CIFAR10")
    place.mkdir()
    (place / "batch").write_text("x")
    assert is_cifar_in(empty, "CIFAR10")
    (place / "batch").write_text("damaged")
    assert not is_cifar_in(empty, "CIFAR10")


LINE = ("train", "digits", "--method", "at", "--name", "run", "--steps", "1")
RUN = Path("checkpoints/run")


def notes(*line: str) -> list[str]:
    """Return the notes of a dry run, which changes no file."""
    before = tree(Path())
    outcome = succeed(*line, "--dry-run")
    assert tree(Path()) == before
    assert len(rows(outcome.out)) > 10
    return outcome.notes


def test_what_training_would_do_with_a_finished_run() -> None:
    line = (*LINE, "--epochs", "1")
    assert notes(*line) == []
    succeed(*line)
    assert notes(*line) == [
        f"note: {RUN} is already finished, see results/train-run.json: --force trains it again."
    ]
    assert notes(*line, "--force") == [f"note: train --force would replace the run in {RUN}."]
    (note,) = notes(*line, "--lr", "0.3")
    error = command(*line, "--lr", "0.3").lines[-1]
    assert f"{RUN} contains a run with --lr 0.05, not 0.3: " in error
    assert note == f"note: train would be refused: {error.removeprefix('error: ')}"
    (RUN / "last.pt").rename(RUN / "kept.pt")
    assert "contains best.pt but no last.pt" in notes(*line)[0]
    shutil.rmtree(RUN)
    assert "results/train-run.json is the record of another run" in notes(*line)[0]


def test_what_training_would_do_with_an_interrupted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def save_and_stop(self: Checkpointer, state: TrainState) -> None:
        self.save(state)
        raise KeyboardInterrupt

    line = (*LINE, "--epochs", "2")
    places = {
        "after_step": "at epoch 1 of 2, after 1 of 20 steps",
        "after_epoch": "after epoch 1 of 2",
    }
    for method, place in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointer, method, save_and_stop)
            assert command(*line).code == 130
        assert notes(*line) == [f"note: train would resume the run in {RUN} {place}."]


def test_assumed_images_are_not_compared_with_those_of_a_run(empty: Path) -> None:
    plan = make_plan(
        "digits",
        method="at",
        arch=None,
        activation="relu",
        given={"epochs": 1, "steps": 1},
        data_dir=empty,
        places=RunPlaces(name="run"),
        context=CONTEXT,
    )
    run_plan(plan, CONTEXT, force=False, callbacks=NoCallbacks())
    train = plan.dataset.train
    black = Images(torch.zeros_like(train.pixels), train.labels)
    assumed = replace(plan, dataset=replace(plan.dataset, train=black))
    done, refused = (
        describe_existing(assumed, CONTEXT, force=False, are_images_assumed=is_assumed)
        for is_assumed in (True, False)
    )
    assert done is not None
    assert refused is not None
    assert "is already finished" in done
    assert "was trained on other images" in refused


def test_a_run_that_cannot_start_is_an_error() -> None:
    outcome = command("train", "digits", "--batch-size", "2000", "--dry-run")
    assert outcome.code == 1
    assert outcome.out == ""
    assert "--batch-size" in outcome.err


def test_a_set_with_its_own_validation_images_says_so() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    labels = np.arange(40) % 10
    parts = {f"x_{part}": pixels for part in ("train", "val", "test")}
    parts |= {f"y_{part}": labels for part in ("train", "val", "test")}
    np.savez("own.npz", **parts)  # type: ignore[arg-type]
    line = ("train", "own.npz", "--arch", "small-cnn", "--batch-size", "8", "--method", "at")
    out = succeed(*line, "--split-seed", "3", "--dry-run").out
    assert "images      40 for training; 40 for validation; 40 for testing" in out
    assert rows(out)["--split-seed"] == ("that of --seed", "default")


def test_the_introduction_joins_both_ends_only_where_they_share_a_source() -> None:
    from adrbench.display.settings import introduce

    config = make_config("adr")
    ours = Source(name="ours for digits", text="")
    shared = dict.fromkeys(("temperature_high", "temperature_low"), ours)
    assert introduce(config, shared) == "ours: temperature 1 to 0.7"
    apart = {**shared, "temperature_high": Source(name="given", text="given")}
    assert introduce(config, apart) == "given: temperature high 1; ours: temperature low 0.7"
