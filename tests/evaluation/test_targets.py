"""Targets: what a user's name for a model resolves to, and what is refused first."""

import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_dataset
from adrbench.errors import CheckpointError, UsageError
from adrbench.evaluation.targets import TargetOptions, Training, resolve_targets
from adrbench.evaluation.targets import target as target_options
from adrbench.evaluation.targets.normalization import NORMALIZATIONS
from adrbench.models.architectures import build_model
from adrbench.registry import ImportPathError, UserCodeError
from adrbench.runtime.hashing import hash_weights
from adrbench.training.loop import train
from logs import logged
from messages import assert_one_line
from training_runs import CONTEXT, make_config
from user_code import write_module


def test_eps_is_the_one_given_then_the_one_trained_with_then_that_of_robustbench() -> None:
    trained = ThreatModel(norm="Linf", eps=0.1)
    assert TargetOptions(eps=0.2).threat_model(trained) == ThreatModel(norm="Linf", eps=0.2)
    assert TargetOptions().threat_model(trained) == trained
    assert TargetOptions().threat_model() == ThreatModel(norm="Linf", eps=8 / 255)
    assert TargetOptions(norm="L2").threat_model(trained) == ThreatModel(norm="L2", eps=0.5)


def test_a_target_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"a checkpoint, robustbench:NAME, timm:NAME, or package"
    ):
        resolve_targets(str(tmp_path / "gone"), TargetOptions())


def test_a_directory_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"contains no best\.pt or last\.pt"):
        resolve_targets(str(tmp_path), TargetOptions())


def test_third_party_weights_have_an_unknown_training(tmp_path: Path) -> None:
    torch.save(
        build_model("small-cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.pt"
    )
    target = str(tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"give --arch and --dataset, such as --arch timm:resnet1"):
        resolve_targets(target, TargetOptions())
    with pytest.raises(UsageError, match=r"give --arch, such as --arch timm:resnet18, and --norm"):
        resolve_targets(target, TargetOptions(dataset="digits"))
    with pytest.raises(CheckpointError, match=r"w\.pt: the state dict does not fit ResNet18"):
        resolve_targets(target, TargetOptions(arch="resnet18", dataset="digits"))
    with logged():
        (model,) = resolve_targets(target, TargetOptions(arch="small-cnn", dataset="digits"))
    assert model.training == Training()
    assert not model.training.is_known
    assert (model.label, model.run, model.training.weights) == ("w", "w", "file")


@pytest.mark.parametrize("target", ["a\0b", "a" * 5000])
def test_a_target_that_no_file_has_as_its_name(target: str) -> None:
    with pytest.raises(UsageError, match=r"^target is .*: give a path") as raised:
        resolve_targets(target, TargetOptions())
    assert_one_line(str(raised.value))
    assert len(str(raised.value)) < 300


def test_notes_of_other_entries_are_short(tmp_path: Path) -> None:
    state = build_model("small-cnn", num_classes=10, in_channels=1).state_dict()
    entries = {f"{name}{'x' * 900}": state for name in range(20)}
    torch.save({"model": state, **entries}, tmp_path / "w.pt")
    options = TargetOptions(arch="small-cnn", dataset="digits", normalize="none", eps=0.1)
    with logged() as messages:
        resolve_targets(str(tmp_path / "w.pt"), options)
    (note,) = [message for message in messages if "also contains" in message]
    assert "and 14 more: model is attacked" in note
    assert len(note) < 1000


def test_the_class_of_a_pickled_object_is_abbreviated(tmp_path: Path) -> None:
    name = "x" * 280
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("w/data.pkl", b"\x80\x02c" + f"module\n{name}\n".encode() + b")R.")
        file.writestr("w/version", b"3")
    with pytest.raises(
        CheckpointError, match=r"is a pickled object, module\.x+\.{3}, wh"
    ) as raised:
        resolve_targets(str(tmp_path / "w.pt"), TargetOptions())
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("changes", [{"seed": 1}, {}])
def test_a_directory_with_files_of_two_runs(tmp_path: Path, changes: dict[str, int]) -> None:
    digits = load_dataset("digits", data_dir=tmp_path, val_size=40)
    digits = replace(digits, train=digits.train.first(64), val=digits.val.first(10))
    for name, seed in (("p", {}), ("q", changes)):
        config = make_config("at", epochs=1, steps=1, **seed)
        train(config, digits, tmp_path / name, context=CONTEXT)
    targets = resolve_targets(str(tmp_path / "p"), TargetOptions())
    assert [target.training.selection for target in targets] == ["best", "last"]
    shutil.copy(tmp_path / "q" / "best.pt", tmp_path / "p")
    with pytest.raises(CheckpointError, match=r"two runs, best\.pt of q .* and last\.pt of p"):
        resolve_targets(str(tmp_path / "p"), TargetOptions())
    (target,) = resolve_targets(str(tmp_path / "p" / "best.pt"), TargetOptions())
    assert target.run == "q"


def test_a_directory_whose_best_checkpoint_is_not_up_to_date(tmp_path: Path) -> None:
    """The run was killed after it had saved its state, in which the last epoch is the best."""
    digits = load_dataset("digits", data_dir=tmp_path, val_size=40)
    digits = replace(digits, train=digits.train.first(640))
    config = make_config("at", epochs=3, steps=1)
    train(config, digits, tmp_path, context=CONTEXT)
    best = checkpoints.load(tmp_path / "best.pt")
    assert best.snapshots["student"].epoch == 3
    older = replace(best.snapshots["student"], epoch=2)
    checkpoints.save(tmp_path / "best.pt", replace(best, snapshots={"student": older}))
    with pytest.raises(
        CheckpointError, match=r"contains the student weights of epoch 2, but .* 3: "
    ):
        resolve_targets(str(tmp_path), TargetOptions())
    assert len(resolve_targets(str(tmp_path / "best.pt"), TargetOptions())) == 1


@pytest.mark.parametrize("attribute", ["ready", "no_arguments"])
def test_a_network_at_an_import_path(
    attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, "my_targets")
    target = f"my_targets:{attribute}"
    (found,) = resolve_targets(target, TargetOptions(dataset="digits"))
    network = sys.modules["my_targets"].ready
    assert found.model is network
    assert not network.training
    assert (found.run, found.label) == (f"my_targets-{attribute}",) * 2
    assert (found.arch, found.training) == (target, Training())
    assert found.checkpoint_sha256 == found.weights_sha256 == hash_weights(network)
    with logged() as messages:
        (named,) = resolve_targets(
            target, TargetOptions(dataset="digits", name="x", arch="wrn-10-1")
        )
    assert (named.run, named.arch) == ("x", target)
    assert messages == [f"--arch is ignored: {target} specifies its own."]


def test_a_network_at_an_import_path_behind_a_normalization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, "my_targets", "from torch import nn\nnet = nn.Identity()")
    options = {
        name: TargetOptions(dataset="cifar10", normalize=name) for name in ("none", "cifar10")
    }
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images = Images(pixels, torch.zeros(1, dtype=torch.int64))
    monkeypatch.setattr(target_options, "load_split", lambda *_, **__: (images, None))
    plain, normalized = (resolve_targets("my_targets:net", one)[0] for one in options.values())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain.model(x), x)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALIZATIONS["cifar10"])
    assert torch.equal(normalized.model(x), (x - mean) / std)
    assert plain.weights_sha256 != normalized.weights_sha256
    assert plain.checkpoint_sha256 == normalized.checkpoint_sha256


@pytest.mark.parametrize(
    ("attribute", "error", "words"),
    [
        (
            "number",
            UsageError,
            "my_targets:number is of type int: name an nn.Module, or a callable",
        ),
        ("raises", ImportPathError, r"raised KeyError .* when it was called"),
        ("Net", ImportPathError, r"raised TypeError .* a callable without arguments"),
        (
            "returns_a_list",
            UsageError,
            "returned an object of type list: it must return an nn.Module",
        ),
        ("gone", ImportPathError, "has no attribute 'gone'"),
        ("lazy", UsageError, "lazy has a parameter without a shape, 1.weight, which the first"),
        ("on_meta", UsageError, "on_meta has a parameter without values, conv.weight, on the meta"),
        ("WithoutState", UserCodeError, "raised KeyError .* when its state_dict.. was called"),
    ],
)
def test_no_network_at_an_import_path(
    attribute: str,
    error: type[Exception],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_module(tmp_path, monkeypatch, "my_targets")
    with pytest.raises(error, match=words):
        resolve_targets(f"my_targets:{attribute}", TargetOptions(dataset="digits"))


def test_an_import_path_needs_a_data_set() -> None:
    with pytest.raises(UsageError, match=r"my\.models:net needs --dataset"):
        resolve_targets("my.models:net", TargetOptions())
