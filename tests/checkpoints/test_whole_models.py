"""Files with a model instead of its weights are rejected with advice, and their code is not run."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.errors import CheckpointError
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.models.architectures import build_model
from logs import logged
from messages import assert_one_sentence
from payloads import Payload

OPTIONS = TargetOptions(arch="small-cnn", dataset="digits", normalize="none", eps=0.1)
SAVE = "torch.save(model.state_dict(), FILE)"
OURS = "adrbench.models.small_cnn.SmallCNN"


def network() -> nn.Module:
    return build_model("small-cnn", num_classes=10, in_channels=1).eval()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve_targets(str(path), OPTIONS)
    return str(caught.value)


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda model: model, OURS),
        (nn.DataParallel, "torch.nn.parallel.data_parallel.DataParallel"),
        (nn.Sequential, "torch.nn.modules.container.Sequential"),
    ],
)
def test_a_pickled_model_is_named_with_advice(
    tmp_path: Path, wrap: Callable[[nn.Module], nn.Module], kind: str, protocol: int, zipped: bool
) -> None:
    path = tmp_path / "whole.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(
            wrap(network()), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped
        )
    assert read_torch_file(path).kind == kind
    assert_one_sentence(refusal(path), f"{path} is a pickled object, {kind}", SAVE, "--arch")


def test_a_pickled_object_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save(Payload(Path.touch, tmp_path / "ran"), tmp_path / "whole.pt")
    assert_one_sentence(refusal(tmp_path / "whole.pt"), "builtins.getattr", SAVE)
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_is_no_object_whatever_is_beside_it(tmp_path: Path) -> None:
    torch.save({"args": nn.Module(), "model": network().state_dict()}, tmp_path / "w.pt")
    assert read_torch_file(tmp_path / "w.pt").kind is None
    with logged():
        assert len(resolve_targets(str(tmp_path / "w.pt"), OPTIONS)) == 1


@pytest.mark.parametrize("name", ["model", "ema"])
def test_a_pickled_model_under_a_name_is_rejected_with_advice(tmp_path: Path, name: str) -> None:
    torch.save({"epoch": 3, name: network()}, tmp_path / "w.pt")
    assert_one_sentence(refusal(tmp_path / "w.pt"), f"its {name} as a pickled", "state_dict()")
    torch.save({"epoch": 3, "best_net": network()}, tmp_path / "w.pt")
    assert_one_sentence(refusal(tmp_path / "w.pt"), "epoch (int), best_net (object)")


def test_programs_are_rejected_with_advice(tmp_path: Path) -> None:
    x = torch.rand(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.trace(network(), x)  # type: ignore[no-untyped-call]
        program.save(str(tmp_path / "script.pt"))
        torch.export.save(torch.export.export(network(), (x,)), tmp_path / "exported.pt2")
    assert_one_sentence(refusal(tmp_path / "script.pt"), "is a TorchScript program", "state dict")
    assert_one_sentence(refusal(tmp_path / "exported.pt2"), "of torch.export", "state dict")
    with zipfile.ZipFile(tmp_path / "older.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert_one_sentence(refusal(tmp_path / "older.pt2"), "of torch.export", "state dict")
