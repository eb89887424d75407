"""`adrbench.train`: runs from Python that the command line would have made."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import adrbench
from adrbench.errors import AdrbenchError
from messages import assert_one_line
from runner import succeed

QUICK: dict[str, Any] = {"epochs": 2, "steps": 1, "batch_size": 128, "device": "cpu"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states_of(path: Path) -> dict[str, Any]:
    snapshots: dict[str, Any] = torch.load(path, weights_only=True)["snapshots"]
    return snapshots


def test_a_run_is_the_one_of_the_command_line() -> None:
    run = adrbench.train("digits", method="adr+wa", **QUICK)
    assert run.directory == Path("checkpoints/digits-small-cnn-adr+wa-seed0")
    succeed(
        "train", "digits", "--method", "adr+wa", "--epochs", "2", "--steps", "1",
        "--batch-size", "128", "--device", "cpu", "--name", "other",
    )  # fmt: skip
    ours, theirs = (states_of(Path(d) / "last.pt") for d in (run.directory, "checkpoints/other"))
    for weights, snapshot in ours.items():
        for name, value in snapshot["state"].items():
            assert torch.equal(value, theirs[weights]["state"][name])
    average, student = run.load_model("average"), run.load_model("student", last=True)
    x, _ = adrbench.load_examples("digits", n=2)
    assert not torch.equal(average(x), student(x))
    assert run.record.run == "digits-small-cnn-adr+wa-seed0"
    assert Path("results/train-digits-small-cnn-adr+wa-seed0.json").exists()


def test_the_same_call_finds_the_finished_run_and_another_setting_is_refused() -> None:
    first = adrbench.train("digits", method="at", name="run", **QUICK)
    again = adrbench.train("digits", method="at", name="run", **QUICK)
    assert again.record == first.record
    with pytest.raises(AdrbenchError, match="force=True"):
        adrbench.train("digits", method="at", name="run", lr=0.2, **QUICK)
    changed = adrbench.train("digits", method="at", name="run", lr=0.2, force=True, **QUICK)
    assert changed.record.config["lr"] == 0.2


class Net(nn.Module):
    """A network of one's own, on pixels in [0, 1]."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3, stride=2)
        self.head = nn.Linear(36, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.stem(x).relu().flatten(1))
        return logits


def test_an_architecture_and_images_of_ones_own() -> None:
    parts = {
        part: adrbench.load_examples("digits", n=300, split=part) for part in ("train", "test")
    }
    arrays = {
        f"{name}_{part}": value
        for part, (x, y) in parts.items()
        for name, value in (("x", (255 * x).round().byte().numpy()), ("y", y.numpy()))
    }
    dataset = adrbench.Dataset.from_arrays(name="mine", **arrays)  # type: ignore[arg-type]
    run = adrbench.train(dataset, method="trades+awp", arch=Net, **QUICK)
    assert run.record.dataset == "mine"
    assert run.record.arch.endswith(":Net")
    model = run.load_model()
    x, y = parts["test"]
    result = adrbench.evaluate(model, x, y, suite="fgsm", eps=0.05)
    assert 0 < result.robust_accuracy <= result.clean_accuracy
    # The file does not import the code of its network.
    with pytest.raises(AdrbenchError, match="arch="):
        adrbench.load_model(run.directory)


class Log:
    """Callbacks that note what happens."""

    def __init__(self) -> None:
        self.steps = 0
        self.epochs: list[int] = []

    def begin(self, config: Any, steps_per_epoch: int, epoch: int, steps: int) -> None:
        self.steps_per_epoch = steps_per_epoch

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        self.steps += 1

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        pass

    def epoch(self, row: Any) -> None:
        self.epochs.append(row.epoch)


def test_callbacks_follow_the_run() -> None:
    log = Log()
    adrbench.train("digits", method="standard", callbacks=log, **QUICK)
    assert log.epochs == [1, 2]
    assert log.steps == 2 * log.steps_per_epoch


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochz": 3}, "unknown setting 'epochz': did you mean epochs?"),
        ({"epochs": 0}, "epochs is 0: give a number at least 1"),
        ({"epochs": "3"}, "epochs is '3': give a whole number"),
        ({"eps": "8/255"}, "eps is '8/255': give a number"),
        ({"eps": 8}, "write 8/255 if you meant that"),
        ({"milestones": (2,)}, "fractions of the run"),
        ({"milestones": ("a",)}, "give numbers"),
        ({"save_minutes": "5"}, "give a number of minutes"),
        ({"method": "adrr"}, "did you mean adr"),
        ({"arch": "resnet"}, "did you mean resnet18"),
        ({"arch": "no_such_module:net"}, "there is no module 'no_such_module'"),
        ({"name": "a/b"}, "give a plain name"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    given: dict[str, Any], words: str, here: Path
) -> None:
    with pytest.raises(AdrbenchError) as caught:
        adrbench.train("digits", **{"method": "at", "epochs": 1, **given})
    assert_one_line(str(caught.value))
    assert words in str(caught.value)
    assert "--" not in str(caught.value)
    assert list(here.iterdir()) == []
