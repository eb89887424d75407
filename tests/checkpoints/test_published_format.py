"""Checkpoints of the published ADR code, which contain pickled objects besides tensors."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.swa_utils import AveragedModel

from adrbench.models.architectures import build_model
from runner import command, succeed

MODULE = "unavailable_trainer"
SOURCE = """
class Warmup:
    def __init__(self, optimizer, inner):
        self.optimizer, self.inner, self.history = optimizer, inner, [0.1, 0.05]

    def __setstate__(self, state):
        raise SystemExit("third-party code ran")
"""


def models() -> tuple[nn.Module, AveragedModel]:
    """Return a student after a few training steps, and its average, which differs from it."""
    torch.manual_seed(0)
    student = build_model("wrn-10-1", num_classes=10, in_channels=1, mean=(0.3,), std=(0.4,))
    average = AveragedModel(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        student(torch.rand(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        average.update_parameters(student)
    student.trained_by = optimizer  # type: ignore[assignment]
    return student, average


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Save a checkpoint whose classes no longer exist afterwards; return its weights."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(MODULE)
    exec(SOURCE, module.__dict__)
    student, average = models()
    optimizer: Any = student.trained_by
    module.Warmup.__module__ = MODULE
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, MODULE, module)
        scheduler = module.Warmup(optimizer, MultiStepLR(optimizer, [1, 2]))
        torch.save(
            {
                "epoch": 199,
                "model": nn.DataParallel(student).state_dict(),
                "model_ema": average.state_dict(),
                "optimizer": optimizer,
                "scheduler": scheduler,
            },
            "model_best.pt",
        )
    return {"student": student.state_dict(), "average": average.module.state_dict()}


ATTACK = ("attack", "model_best.pt", "--arch", "wrn-10-1", "--dataset", "digits", "--eps", "0.1")
PGD = ("--suite", "pgd-2", "--n", "50")


def test_both_sets_of_weights_are_evaluated(published: dict[str, Any]) -> None:
    found = {}
    for weights in ("student", "average"):
        outcome = succeed(*ATTACK, *PGD, "--weights", weights)
        (note,) = (note for note in outcome.notes if "were not read" in note)
        assert "torch.optim.lr_scheduler.MultiStepLR and 2 more" in note
        (path,) = Path("results").glob(f"model_best-{weights}-pgd-2-*.json")
        found[weights] = json.loads(path.read_text())
    assert MODULE not in sys.modules
    assert found["student"]["weights_sha256"] != found["average"]["weights_sha256"]
    for weights, record in found.items():
        model = build_model("wrn-10-1", num_classes=10, in_channels=1)
        model.load_state_dict(published[weights])
        x, y = digits(50)
        with torch.no_grad():
            correct = int((model.eval()(x).argmax(1) == y).sum())
        assert record["clean_correct"] == correct


def digits(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    import adrbench

    return adrbench.load_examples("digits", n=n)


def test_the_weights_are_selected_by_name(published: dict[str, Any]) -> None:
    outcome = succeed(*ATTACK, *PGD)
    assert any(
        "also contains model_ema: model is attacked, see --weights" in n for n in outcome.notes
    )
    outcome = command(*ATTACK, *PGD, "--weights", "both")
    assert outcome.code == 2
    assert "choose --weights student or average" in outcome.lines[-1]
