"""Targets from timm, and state dicts of its networks, attacked with pretrained weights on disk."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adrbench.errors import UsageError
from adrbench.evaluation.targets import TargetOptions, Training, resolve_targets
from adrbench.models.normalize import Normalized
from adrbench.models.timm_models import import_timm
from adrbench.results.records import AttackRecord, read_record
from adrbench.runtime.hashing import hash_weights
from logs import logged
from runner import command, succeed
from user_code import write_module

timm = import_timm()
NAME = "test_vit"
TARGET = f"timm:{NAME}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a data set of ten classes of random 32x32 images, and return its file."""
    generator = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": generator.integers(0, 256 if kind == "x" else 10, shape, dtype=np.uint8)
        for part, n in (("train", 40), ("test", 20))
        for kind, shape in (("x", (n, 32, 32, 3)), ("y", (n,)))
    }
    for part in ("train", "test"):
        arrays[f"y_{part}"][:10] = np.arange(10)
    np.savez(tmp_path / "ten.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path / "ten.npz"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Let timm have pretrained weights of ten classes in a local file, and return the network."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(NAME, num_classes=10, img_size=32)
    torch.save(network.state_dict(), tmp_path / "pretrained.pt")
    registry = sys.modules["timm.models._registry"].__dict__["_model_pretrained_cfgs"]
    changes: dict[str, Any] = {"hf_hub_id": None, "num_classes": 10, "input_size": (3, 32, 32)}
    for name in (NAME, f"{NAME}.r160_in1k"):
        local = replace(registry[name], file=str(tmp_path / "pretrained.pt"), **changes)
        monkeypatch.setitem(registry, name, local)
    return network.eval()


def test_a_pretrained_network_is_normalized_as_timm_does(data: Path, network: nn.Module) -> None:
    with logged() as messages:
        (target,) = resolve_targets(TARGET, TargetOptions(dataset=str(data)))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(target.model(x), network((x - 0.5) / 0.5))
    assert (target.arch, target.run, target.training) == (TARGET, "timm-test_vit", Training())
    assert target.checkpoint_sha256 == hash_weights(network)
    assert messages == [
        f"{TARGET} is attacked with timm's weights test_vit.r160_in1k, for which pixels are "
        "normalized by mean (0.5, 0.5, 0.5) and std (0.5, 0.5, 0.5); see --normalize."
    ]


def test_a_normalization_that_is_given_replaces_that_of_timm(
    data: Path, network: nn.Module
) -> None:
    with logged() as messages:
        (plain,) = resolve_targets(TARGET, TargetOptions(dataset=str(data), normalize="none"))
        (own,) = resolve_targets(TARGET, TargetOptions(dataset=str(data), normalize="cifar10"))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain.model(x), network(x))
    assert isinstance(own.model, Normalized)
    assert own.model.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-3)
    assert messages == []


def test_what_the_images_and_the_options_have_to_be() -> None:
    with pytest.raises(UsageError, match=f"{TARGET} needs --dataset"):
        resolve_targets(TARGET, TargetOptions())
    with pytest.raises(UsageError, match="test_vit takes 3 channels, and the images have 1"):
        resolve_targets(TARGET, TargetOptions(dataset="digits"))


def test_a_state_dict_is_attacked_as_the_pretrained_network(
    data: Path, network: nn.Module, tmp_path: Path
) -> None:
    """The weights, bare or wrapped, give the same counts under every spelling of the network."""
    options = ("--dataset", data, "--suite", "fgsm", "--out", tmp_path / "results")
    succeed("attack", TARGET, *options)
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "wrapped.pt")
    half = torch.full((3,), 0.5)
    normalized = {f"1.{key}": value for key, value in network.state_dict().items()}
    torch.save(normalized | {"0.mean": half, "0.std": half}, tmp_path / "normalized.pt")
    for file in ("wrapped.pt", "normalized.pt"):
        found = resolve_targets(str(tmp_path / file), TargetOptions(dataset=str(data), arch=TARGET))
        x = torch.rand(2, 3, 32, 32)
        expected = network(x) if file == "wrapped.pt" else network((x - 0.5) / 0.5)
        assert torch.equal(found[0].model(x), expected)
    mine = ("--arch", TARGET, "--name", "mine", "--activation", "silu")
    outcome = succeed("attack", tmp_path / "normalized.pt", *mine, *options)
    assert f"note: the activation silu is ignored: {TARGET} has its own." in outcome.notes
    records = [read_record(path) for path in sorted((tmp_path / "results").glob("*.json"))]
    assert [record.run for record in records] == ["mine", "timm-test_vit"]
    counts = set()
    for record in records:
        assert isinstance(record, AttackRecord)
        assert (record.arch, record.weights, record.selection) == (TARGET, "file", "file")
        assert record.activation == "relu"
        counts.add((record.clean_correct, record.robust_correct))
    assert len(counts) == 1


OWN_CONSTANTS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.model = nn.ModuleDict({"linear": nn.Linear(in_channels, num_classes)})
        self.model.register_buffer("mean", torch.zeros(in_channels))

    def forward(self, x):
        return self.model["linear"](x.mean((2, 3)) - self.model.mean)
"""


def test_buffers_of_a_network_called_mean_are_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, "my_constants", OWN_CONSTANTS)
    state = {
        "model.linear.weight": torch.rand(10, 3),
        "model.linear.bias": torch.rand(10),
        "model.mean": torch.rand(3),
    }
    torch.save(state, tmp_path / "own.pt")
    (target,) = resolve_targets(
        str(tmp_path / "own.pt"), TargetOptions(dataset=str(data), arch="my_constants:Net")
    )
    held = target.model.state_dict()
    assert all(torch.equal(held[f"network.{key}"], value) for key, value in state.items())
    assert torch.equal(held["mean"], torch.zeros(3, 1, 1))


def test_a_name_for_several_targets(data: Path) -> None:
    outcome = command("attack", TARGET, TARGET, "--dataset", data, "--name", "one")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.lines == ["error: --name one cannot name 2 targets: give one target."]
