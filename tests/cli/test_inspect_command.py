"""`adrbench inspect`: the record, its tables, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adrbench
from adrbench.checkpoints import format as checkpoints
from adrbench.evaluation import inspection
from adrbench.report.inspection_tables import describe, tabulate
from adrbench.report.terminal import render_table
from adrbench.results.inspection import InspectRecord, unpack_pixels
from adrbench.results.records import TrainRecord, read_record, write_record
from messages import assert_one_sentence
from report_records import inspect_record
from runner import QUICK, command, succeed, tree

RUN = "digits-small-cnn-adr-seed0"
DIRECTORY = Path("checkpoints") / RUN
RECORD = Path("results") / f"inspect-{RUN}-best.json"
TWO_EPOCHS = ("--epochs", "2", "--steps", "1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a run with ADR, which was inspected, and one without."""
    place = tmp_path_factory.mktemp("inspected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        succeed("train", "digits", "--method", "adr", *TWO_EPOCHS)
        succeed("train", "digits", "--method", "at+wa", "--name", "plain", *QUICK)
        succeed("inspect", DIRECTORY)
    return place


@pytest.fixture
def workplace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that directory, which is the working directory."""
    place = tmp_path / "workplace"
    shutil.copytree(trained, place)
    monkeypatch.chdir(place)
    return place


def read_inspection(path: Path = RECORD) -> InspectRecord:
    record = read_record(path)
    assert isinstance(record, InspectRecord)
    return record


def test_the_record_is_what_the_public_functions_return(workplace: Path) -> None:
    """The labels by `adrbench.ADR`, from the averaged model's outputs on the training images."""
    record = read_inspection()
    trained = read_record(Path("results") / f"train-{RUN}.json")
    assert isinstance(trained, TrainRecord)
    values = [
        (row.annealed["temperature"], row.annealed["interpolation"]) for row in trained.rows()
    ]
    assert [(one.temperature, one.interpolation) for one in record.schedule] == values
    assert (record.temperature, record.interpolation) == values[record.epoch - 1]
    assert (record.n, record.num_train) == (trained.num_train, trained.num_train)

    loaded = adrbench.data.load_dataset("digits", data_dir=Path("data")).train
    x, y = loaded.pixels / 255, loaded.labels
    with torch.no_grad():
        logits = adrbench.load_model(DIRECTORY, "average")(x)
    rectify = adrbench.ADR(
        total_steps=record.total_steps,
        temperature=(trained.config["temperature_high"], trained.config["temperature_low"]),
        interpolation=(trained.config["interpolation_low"], trained.config["interpolation_high"]),
    )
    labels = rectify(logits, y, record.steps - 1)
    for index in range(10):
        mean = labels[y == index].mean(0).numpy()
        assert record.mean_labels[index] == pytest.approx(mean, abs=2e-5)
    assert record.num_disagreeing == (logits.argmax(1) != y).sum()
    first = record.moved[0]
    of_label = labels.gather(1, y[:, None]).squeeze(1)
    assert first.label_probability == pytest.approx(of_label.min().item(), abs=1e-5)
    pixels = unpack_pixels(first.pixels, record.image_shape)
    assert np.array_equal(pixels, loaded.pixels[first.index].numpy())
    every = adrbench.data.load_dataset("digits", data_dir=Path("data"), val_size=0).train
    assert first.position is not None
    assert first.position > first.index
    assert np.array_equal(pixels, every.pixels[first.position].numpy())


def test_everything_printed_fits_80_columns_and_is_printed_again(workplace: Path) -> None:
    before = tree(workplace)
    again = succeed("inspect", DIRECTORY)
    assert again.err == (
        f"note: {RUN} best is already inspected, see {RECORD}: --force repeats it.\n"
    )
    assert tree(workplace) == before
    forced = succeed("inspect", DIRECTORY, "--force")
    assert forced.out == again.out
    lines = again.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == f"record: {RECORD}"
    for title in ("Mean rectified label", "Most confusable", "Labels that moved", "Annealing"):
        assert sum(line.startswith(title) for line in lines) == 1


def test_other_inspections_of_the_same_run_replace_its_record(workplace: Path) -> None:
    fewer = succeed("inspect", DIRECTORY / checkpoints.BEST, "--n", "100")
    assert fewer.notes == [
        f"note: {RECORD} is replaced: it was of epoch {read_inspection().epoch} and 1,294 images "
        "of the same run."
    ]
    assert "images: 100 of 1,294 training images" in fewer.out
    assert read_inspection().n == 100
    succeed("inspect", DIRECTORY, "--selection", "last")
    assert read_inspection(Path("results") / f"inspect-{RUN}-last.json").epoch == 2


def test_the_record_of_another_run_is_kept_unless_forced(workplace: Path) -> None:
    write_record(RECORD, replace(read_inspection(), run_id="other", checkpoint_sha256="other"))
    before = tree(workplace)
    refused = command("inspect", DIRECTORY)
    assert refused.code == 1
    assert_one_sentence(refused.lines[0], "the record of another run", "--force to replace it")
    assert tree(workplace) == before
    succeed("inspect", DIRECTORY, "--force")
    assert read_inspection().run_id != "other"


@pytest.mark.parametrize("content", ["", '{"kind": "train", "schema": 4}'])
def test_a_damaged_record_is_kept_unless_forced(workplace: Path, content: str) -> None:
    RECORD.write_text(content)
    refused = command("inspect", DIRECTORY)
    assert refused.code == 1
    assert_one_sentence(refused.lines[0], str(RECORD), "--force to replace it")
    succeed("inspect", DIRECTORY, "--force", "--n", "10")


def test_an_interrupted_inspection_writes_nothing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RECORD.unlink()
    before = tree(workplace)

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "find_pairs", interrupt)
    stopped = command("inspect", DIRECTORY)
    assert (stopped.code, stopped.lines) == (
        130,
        ["error: interrupted: run the same command again."],
    )
    assert tree(workplace) == before


@pytest.mark.parametrize(
    ("line", "code", "parts"),
    [
        ("nowhere", 1, ("nowhere",)),
        ("results", 1, ("contains no best.pt or last.pt",)),
        ("checkpoints/plain", 1, ("method 'at+wa'", "does not rectify labels", "has ADR")),
        (f"{DIRECTORY} --n 0", 2, ("n is 0", "from 1 to 1294")),
        (f"{DIRECTORY} --n 1295", 2, ("n is 1295", "from 1 to 1294")),
        (f"{DIRECTORY} --batch-size 0", 2, ("--batch-size is 0", "at least 1")),
        (f"{DIRECTORY} --selection first", 2, ("unknown selection 'first'",)),
        (f"{DIRECTORY}/best.pt --selection last", 2, ("--selection last", "is not a directory")),
        (f"{DIRECTORY} --dataset other.npz", 1, ("other.npz are not those", "--dataset")),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    workplace: Path, line: str, code: int, parts: tuple[str, ...]
) -> None:
    images, labels = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 10
    np.savez("other.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    before = tree(workplace)
    outcome = command("inspect", *line.split())
    assert outcome.code == code
    assert_one_sentence(outcome.lines[0].removeprefix("error: "), *parts)
    assert tree(workplace) == before


@pytest.mark.parametrize("run", ["../elsewhere", "", "x" * 300])
def test_a_file_does_not_choose_where_the_record_goes(workplace: Path, run: str) -> None:
    path = DIRECTORY / checkpoints.BEST
    content = torch.load(path, weights_only=True) | {"run": run}
    del content[checkpoints.CHECKSUM]
    torch.save(content | {checkpoints.CHECKSUM: checkpoints.checksum(content)}, path)
    before = tree(workplace)
    refused = command("inspect", path)
    assert refused.code == 1
    assert_one_sentence(refused.lines[0].removeprefix("error: "), "is no name of a run")
    assert tree(workplace) == before


def test_a_data_set_with_validation_images_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its training images are all inspected; of 12 x 12 pixels in color, they are stored whole."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    parts = {"train": 64, "val": 16, "test": 16}
    arrays: dict[str, Any] = {}
    for part, n in parts.items():
        arrays[f"x_{part}"] = draws.integers(0, 256, (n, 12, 12, 3)).astype(np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % 4
    np.savez("own.npz", **arrays)
    size = ("--batch-size", "32", "--arch", "small-cnn", "--name", "own")
    succeed("train", "own.npz", "--method", "adr", *size, *QUICK)
    succeed("inspect", "checkpoints/own")
    record = read_inspection(Path("results/inspect-own-best.json"))
    assert (record.n, record.num_train, record.num_classes) == (64, 64, 4)
    assert record.image_shape == (3, 12, 12)
    assert (record.label, record.dataset) == ("own", "own")


def test_many_classes_with_long_names_fit_80_columns() -> None:
    names = tuple(f"{index}: a rather long name of a class" for index in range(200))
    means = tuple(tuple(1 / 200 for _ in names) for _ in names)
    record = inspect_record(
        num_classes=200, class_names=names, mean_labels=means, class_counts=(3, *199 * (0,))
    )
    tables = tabulate(record)
    assert [table.title.partition(":")[0] for table in tables] == [
        *("Most confusable pairs", "Labels that moved furthest"),
        *("Teacher disagrees with the label", "Annealing"),
    ]
    shown = [*describe(record), *(render_table(table, 80) for table in tables)]
    assert max(len(line) for text in shown for line in text.splitlines()) <= 80


def test_the_record_is_no_result_of_an_attack(workplace: Path) -> None:
    """Reports and further attacks work in a directory with inspections."""
    succeed("attack", DIRECTORY, "--suite", "clean", "--n", "20")
    assert len(adrbench.load_results("results")) == 2
    assert "inspect" not in succeed("report").out
    assert json.loads(succeed("report", "--format", "json", "--latest").out)["tables"]
