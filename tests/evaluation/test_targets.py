"""Targets: what a user's name for a model resolves to, and what is refused first."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.config.threat import ThreatModel
from adrbench.data import load_dataset
from adrbench.errors import CheckpointError, UsageError
from adrbench.evaluation.targets import TargetOptions, Training, resolve_targets
from adrbench.models.architectures import build_model
from adrbench.training.loop import train
from logs import logged
from training_runs import CONTEXT, make_config


def test_eps_is_the_one_given_then_the_one_trained_with_then_that_of_robustbench() -> None:
    trained = ThreatModel(norm="Linf", eps=0.1)
    assert TargetOptions(eps=0.2).threat_model(trained) == ThreatModel(norm="Linf", eps=0.2)
    assert TargetOptions().threat_model(trained) == trained
    assert TargetOptions().threat_model() == ThreatModel(norm="Linf", eps=8 / 255)
    assert TargetOptions(norm="L2").threat_model(trained) == ThreatModel(norm="L2", eps=0.5)


def test_a_target_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a checkpoint, or robustbench:NAME"):
        resolve_targets(str(tmp_path / "gone"), TargetOptions())


def test_a_directory_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no best\.pt or last\.pt"):
        resolve_targets(str(tmp_path), TargetOptions())


def test_third_party_weights_have_an_unknown_training(tmp_path: Path) -> None:
    torch.save(
        build_model("small-cnn", num_classes=10, in_channels=1).state_dict(), tmp_path / "w.pt"
    )
    target = str(tmp_path / "w.pt")
    with pytest.raises(UsageError, match="for third-party weights, give --arch and --dataset"):
        resolve_targets(target, TargetOptions())
    with logged():
        (model,) = resolve_targets(target, TargetOptions(arch="small-cnn", dataset="digits"))
    assert model.training == Training()
    assert not model.training.is_known
    assert (model.label, model.run, model.training.weights) == ("w", "w", "file")


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
    with pytest.raises(CheckpointError, match=r"holds the student weights of epoch 2, but .* 3: "):
        resolve_targets(str(tmp_path), TargetOptions())
    assert len(resolve_targets(str(tmp_path / "best.pt"), TargetOptions())) == 1
