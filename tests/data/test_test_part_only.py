"""Data with a test part only can be attacked, and training on it is refused in one sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from adrbench.data import load_dataset, load_examples, load_split
from adrbench.errors import DataError
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.evaluation.targets.zoo import _find_zoo_dataset
from adrbench.models.architectures import build_model
from image_files import write_image
from logs import logged
from messages import assert_one_sentence
from runner import command, succeed

NOWHERE = Path("nowhere")
FLAGS = ("--arch", "small-cnn", "--normalize", "none", "--suite", "fgsm")


def write(path: Path, labels: list[int], **others: npt.NDArray[Any]) -> str:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    np.savez(path, allow_pickle=True, x_test=x, y_test=np.array(labels), **others)
    return str(path)


def write_weights(path: Path, num_classes: int) -> str:
    torch.manual_seed(0)
    state = build_model("small-cnn", num_classes=num_classes).state_dict()
    torch.save({k: v for k, v in state.items() if k not in ("mean", "std")}, path)
    return str(path)


def test_the_labels_of_a_test_part_say_how_many_classes_there_are_at_least(tmp_path: Path) -> None:
    path = write(tmp_path / "own.npz", [0, 4, 1])
    images, source = load_split(path, "test", data_dir=NOWHERE)
    assert images.labels.tolist() == [0, 4, 1]
    assert (source.num_classes, source.classes_are_known) == (5, False)
    assert load_examples(path)[0].shape == (3, 3, 8, 8)
    known = write(tmp_path / "known.npz", [0, 4, 1], y_train=np.array([0, 9]))
    _, source = load_split(known, "test", data_dir=NOWHERE)
    assert (source.num_classes, source.classes_are_known) == (10, True)


def test_training_without_training_images_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "own.npz", [0, 4, 1])
    write_image(tmp_path / "folder" / "val" / "ant" / "1.png", 1)
    write_image(tmp_path / "folder" / "val" / "bee" / "1.png", 2)
    for dataset, needed in ((path, "x_train and y_train"), (str(tmp_path / "folder"), "train/")):
        with pytest.raises(DataError) as caught:
            load_dataset(dataset, data_dir=NOWHERE)
        assert_one_sentence(str(caught.value), dataset, "no training images", needed)


@pytest.mark.parametrize("part", ["test", "val"])
def test_the_classes_of_a_folder_are_those_of_its_only_part(tmp_path: Path, part: str) -> None:
    for name in ("bee", "ant", "wasp"):
        write_image(tmp_path / part / name / "1.png", len(name))
    images, source = load_split(str(tmp_path), "test", data_dir=NOWHERE)
    assert (source.num_classes, source.classes_are_known) == (3, True)
    assert images.labels.tolist() == [0, 1, 2]
    assert images.pixels[:, 0, 0, 0].tolist() == [3, 3, 4]
    shutil.rmtree(tmp_path / part / "bee")
    shutil.rmtree(tmp_path / part / "ant")
    with pytest.raises(DataError) as caught:
        load_split(str(tmp_path), "test", data_dir=NOWHERE)
    assert_one_sentence(str(caught.value), f"{tmp_path / part} has only one class")


@pytest.mark.parametrize(("labels", "num_classes"), [([0, 2, 1], 3), ([0, 2, 1], 7), ([0, 0], 4)])
def test_a_model_may_have_more_classes_than_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[int], num_classes: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("own.npz"), labels)
    write_weights(Path("w.pt"), num_classes)
    succeed("attack", "w.pt", "--dataset", "own.npz", *FLAGS)
    (record,) = Path("results").glob("w-fgsm-*.json")
    held = json.loads(record.read_text())
    assert (held["n"], held["num_test"], held["dataset"]) == (len(labels), len(labels), "own")
    assert (held["num_classes"], held["published_test_set"]) == (num_classes, False)
    assert "is already finished" in succeed("attack", "w.pt", "--dataset", "own.npz", *FLAGS).err


def test_a_model_with_fewer_classes_than_the_labels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("own.npz"), [0, 4])
    write_weights(Path("w.pt"), 3)
    outcome = command("attack", "w.pt", "--dataset", "own.npz", *FLAGS)
    (line,) = (line for line in outcome.lines if line.startswith("error: "))
    assert_one_sentence(line, "w has 3 classes, but the labels of own go up to 4", "--dataset")
    assert outcome.code == 2
    assert not Path("results").exists()


def test_weights_that_do_not_tell_their_number_of_classes_are_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path / "own.npz", [0, 4])
    torch.save({"other.weight": torch.ones(2, 2, 2)}, tmp_path / "w.pt")
    options = TargetOptions(arch="small-cnn", dataset=dataset, normalize="none", eps=0.1)
    with pytest.raises(ValueError, match=r"1 unexpected: other\.weight"):
        resolve_targets(str(tmp_path / "w.pt"), options)


@pytest.mark.parametrize(
    ("highest", "expected"), [(9, "cifar10"), (3, "cifar10"), (10, "cifar100"), (99, "cifar100")]
)
def test_the_zoo_models_are_those_of_the_data_set_that_has_the_labels(
    tmp_path: Path, highest: int, expected: str
) -> None:
    dataset = write(tmp_path / "own.npz", [0, highest])
    with logged() as messages:
        assert _find_zoo_dataset("Name", dataset, TargetOptions()) == expected
    assert len(messages) == 1
    with pytest.raises(ValueError, match="has at least 101 classes"):
        _find_zoo_dataset("Name", write(tmp_path / "many.npz", [0, 100]), TargetOptions())
