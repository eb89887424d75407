"""The path of the user's data is in the settings file of a run, and in no other file."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.settings_file import CONFIG, RUN_ID, find_dataset
from adrbench.data.find_source import stored_name
from adrbench.errors import DataError
from messages import assert_one_line
from plugins import Installer
from runner import QUICK, command, succeed

RUN = Path("checkpoints/run")
LAST = RUN / checkpoints.LAST
SECRET = "name-of-the-user"
SETTINGS = ("--method", "adr", "--name", "run", "--batch-size", "20", *QUICK)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a run on a file in a directory whose name is private."""
    place = tmp_path_factory.mktemp("trained")
    data = tmp_path_factory.mktemp(SECRET) / "mine.npz"
    pixels = np.zeros((40, 8, 8), np.uint8)
    labels = np.arange(40) % 10
    np.savez(data, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        succeed("train", data, *SETTINGS)
        succeed("attack", RUN, "--suite", "pgd-1", "--outputs")
        succeed("inspect", RUN)
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = shutil.copytree(trained, tmp_path / "copied")
    monkeypatch.chdir(copied)
    return copied


def data_path() -> str:
    path: str = json.loads((RUN / CONFIG).read_bytes())["dataset"]
    return path


@pytest.mark.usefixtures("place")
def test_no_other_file_holds_the_path() -> None:
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert len(files) >= 8
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == [RUN / CONFIG]
    assert checkpoints.load(LAST).config.dataset == "mine"
    assert json.loads(Path("results/train-run.json").read_bytes())["config"]["dataset"] == "mine"


@pytest.mark.usefixtures("place")
def test_a_run_resumes_and_finds_its_data() -> None:
    again = succeed("train", data_path(), *SETTINGS)
    assert "already finished" in again.err
    assert find_dataset(LAST, checkpoints.load(LAST)) == data_path()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", ["attack", "inspect"])
def test_a_checkpoint_alone_needs_its_data_set(verb: str) -> None:
    path = data_path()
    shutil.copy(LAST, "alone.pt")
    refused = command(verb, "alone.pt")
    assert refused.code == 1
    (line,) = refused.lines
    assert_one_line(line)
    assert "alone.pt was trained on mine, whose path" in line
    assert "--dataset" in line
    suite = ("--suite", "clean") if verb == "attack" else ()
    succeed(verb, "alone.pt", "--dataset", path, *suite)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "changes",
    [{RUN_ID: "0" * 16}, {"dataset": "/etc/other.npz"}, {"dataset": "os:getcwd"}, {"dataset": 1}],
)
def test_settings_of_another_run_or_data_set_are_not_used(changes: dict[str, object]) -> None:
    stored = json.loads((RUN / CONFIG).read_bytes())
    (RUN / CONFIG).write_text(json.dumps(stored | changes))
    with pytest.raises(DataError, match="trained on mine, whose path is not in"):
        find_dataset(LAST, checkpoints.load(LAST))


@pytest.mark.usefixtures("place")
def test_a_folder_or_plugin_of_the_same_name_is_not_taken(install_plugin: Installer) -> None:
    shutil.copy(LAST, "alone.pt")
    Path("mine").mkdir()
    install_plugin({"adrbench.datasets": {"mine": "mine_plugin:build"}}, {"mine_plugin": ""})
    alone = checkpoints.load(Path("alone.pt"))
    with pytest.raises(DataError, match="trained on mine, whose path is not in") as raised:
        find_dataset(Path("alone.pt"), alone)
    assert_one_line(str(raised.value))
    of_plugin = replace(alone, plugins={"datasets:mine": "my-plugin 1.0"})
    assert find_dataset(Path("alone.pt"), of_plugin) == "mine"


@pytest.mark.usefixtures("place")
def test_a_checkpoint_records_the_plugin_of_its_data(install_plugin: Installer) -> None:
    code = """
import numpy as np
from adrbench import Dataset

def build(data_dir):
    x, y = np.zeros((40, 1, 8, 8), np.uint8), np.arange(40) % 10
    return Dataset.from_arrays(name="any", x_train=x, y_train=y, x_test=x, y_test=y)
"""
    points = {"adrbench.datasets": {"stripes": "stripes_plugin:build"}}
    install_plugin(points, {"stripes_plugin": code})
    succeed("train", "stripes", "--method", "at", "--name", "plugged", "--batch-size", "20", *QUICK)
    shutil.copy(RUN.with_name("plugged") / checkpoints.BEST, "alone.pt")
    alone = checkpoints.load(Path("alone.pt"))
    assert list(alone.plugins) == ["datasets:stripes"]
    assert find_dataset(Path("alone.pt"), alone) == "stripes"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("dataset", ["~nosuchuser/x.npz", "a\0b/x", f"{'a' * 5000}/x"])
def test_a_path_that_no_file_has_is_one_short_error(dataset: str) -> None:
    saved = checkpoints.load(LAST)
    odd = replace(saved, config=saved.config.with_settings(dataset=dataset))
    with pytest.raises(DataError, match="which does not exist here") as raised:
        find_dataset(LAST, odd)
    assert_one_line(str(raised.value))
    assert len(str(raised.value)) < 400


@pytest.mark.usefixtures("place")
def test_a_path_that_an_earlier_version_stored_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_path()
    saved = checkpoints.load(LAST)
    old = replace(saved, config=saved.config.with_settings(dataset=path))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "stored_name", lambda dataset: dataset)
        checkpoints.save(LAST, old)
    assert torch.load(LAST, weights_only=True)["config"]["dataset"] == path
    (RUN / CONFIG).unlink()
    assert find_dataset(LAST, checkpoints.load(LAST)) == path
    succeed("attack", LAST, "--suite", "clean")
    succeed("train", path, *SETTINGS)


@pytest.mark.parametrize(
    ("dataset", "stored"),
    [
        ("cifar10", "cifar10"),
        ("my_data:build", "my_data:build"),
        ("/home/me/cifar10.npz", "cifar10-npz"),
        ("data/My Images.npz", "My-Images"),
        ("/home/me/folder", "folder"),
        ("in memory", "in memory"),
    ],
)
def test_names_are_stored_as_they_are_and_paths_by_their_name(dataset: str, stored: str) -> None:
    assert stored_name(dataset) == stored
