"""From a checkpoint to its model: whose code may be imported, and what has to be given again."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import adrbench
from adrbench import registry
from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, ModelShape, Snapshot
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.errors import CheckpointError, UsageError
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.models.architectures import build_model
from adrbench.registry import ImportPathError
from logs import logged
from user_code import install_plugin, write_module

PATH = "my_networks:build"


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a module of networks into a working directory, and return that."""
    write_module(tmp_path, monkeypatch, "my_networks")
    return tmp_path


def save(path: Path, arch: str, **changes: object) -> None:
    """Write a checkpoint of `my_networks:build` under the name `arch`."""
    preset = find_preset("digits", arch, parse_method("at"), num_train=1437)
    values = {"dataset": "digits", "arch": arch, "method": "at", "val_size": 143}
    model = build_model(PATH, num_classes=10, in_channels=1, mean=(0.3,), std=(0.4,))
    checkpoint = Checkpoint(
        selection="best",
        config=TrainConfig.of(**values, **preset.values),
        shape=ModelShape(num_classes=10, in_channels=1, image_size=(8, 8)),
        run="a run",
        data_sha256="d" * 64,
        snapshots={"student": Snapshot(state=model.state_dict(), epoch=1, counts=None)},
    )
    checkpoints.save(path, replace(checkpoint, **changes))  # type: ignore[arg-type]
    del sys.modules["my_networks"]


def test_a_file_never_imports_the_code_that_it_names(networks: Path) -> None:
    file = networks / "best.pt"
    save(file, PATH)
    with pytest.raises(CheckpointError, match=f"pass arch='{PATH}', or the callable itself"):
        adrbench.load_model(file)
    with pytest.raises(
        CheckpointError, match=f"trained with .* {PATH}.*: give --arch {PATH} again"
    ):
        resolve_targets(str(file), TargetOptions())
    other = "my_networks:Net"
    with pytest.raises(CheckpointError, match=f"architecture {PATH}, not {other}"):
        resolve_targets(str(file), TargetOptions(arch=other))
    assert "my_networks" not in sys.modules


def test_code_that_is_named_again(networks: Path) -> None:
    file = networks / "best.pt"
    save(file, PATH)
    with logged() as messages:
        (target,) = resolve_targets(str(file), TargetOptions(arch=PATH))
    assert (target.arch, target.run, messages) == (PATH, "a run", [])
    build = sys.modules["my_networks"].build
    for model in (
        target.model,
        adrbench.load_model(file, arch=PATH),
        adrbench.load_model(file, arch=build),
    ):
        assert not model.training
        assert model(torch.rand(1, 1, 8, 8)).shape == (1, 10)
        assert model.get_buffer("mean").item() == pytest.approx(0.3)


def test_code_of_a_script_has_no_path_to_compare(networks: Path) -> None:
    file = networks / "best.pt"
    save(file, "__main__:build")
    with pytest.raises(CheckpointError, match="give the import path of its class or function"):
        resolve_targets(str(file), TargetOptions())
    assert resolve_targets(str(file), TargetOptions(arch=PATH))[0].arch == "__main__:build"


def test_code_that_does_not_fit_or_raises(networks: Path) -> None:
    file = networks / "best.pt"
    save(file, "__main__:build")
    with pytest.raises(CheckpointError, match="do not fit the architecture that it specifies"):
        adrbench.load_model(file, arch="my_networks:SizedNet")
    with pytest.raises(ImportPathError, match="raised KeyError") as caught:
        adrbench.load_model(file, arch="my_networks:raises")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_plugin_is_loaded_or_named(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = networks / "best.pt"
    with monkeypatch.context() as patch:
        install_plugin(networks, patch, "architectures", "my-net", PATH)
        save(file, "my-net", plugins={"architectures:my-net": "my-plugin 1.5"})
        with logged() as messages:
            adrbench.load_model(file)
        assert messages == []
        save(networks / "older.pt", "my-net", plugins={"architectures:my-net": "my-plugin 1.4"})
        with logged() as messages:
            adrbench.load_model(networks / "older.pt")
        (message,) = messages
        assert "trained with my-net of my-plugin 1.4; my-plugin 1.5 is installed" in message
    registry._registered.cache_clear()
    with pytest.raises(CheckpointError, match=r"my-net of my-plugin 1\.5, which is not installed"):
        adrbench.load_model(file)


def test_an_architecture_that_is_not_needed_is_ignored(tmp_path: Path) -> None:
    kept = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "schema-4.pt"
    with logged() as messages:
        adrbench.load_model(kept, arch="wrn-10-1")
    assert messages == [f"arch is ignored: {kept} specifies its own."]


def test_a_path_of_another_type() -> None:
    with pytest.raises(UsageError, match=r"path is 3: give a path\."):
        adrbench.load_model(3)  # type: ignore[arg-type]
