"""`adrbench.train`: runs from Python that the command line would have made."""

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adrbench
from adrbench import AdrbenchError
from adrbench.api.train import check_given
from adrbench.config.component_plugins import TRAIN_PARAMETERS
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.registry import UserCodeError
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
    average, student = run.load_model("average"), run.load_model("student", selection="last")
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


class Log(adrbench.NoCallbacks):
    """Callbacks that note what happens."""

    def __init__(self) -> None:
        self.steps = 0
        self.epochs: list[int] = []

    def begin(self, config: Any, steps_per_epoch: int, epoch: int, steps: int) -> None:
        self.steps_per_epoch = steps_per_epoch

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        self.steps += 1

    def epoch(self, row: Any) -> None:
        self.epochs.append(row.epoch)


def test_callbacks_follow_the_run_beside_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    adrbench.train("digits", method="standard", callbacks=log, progress=True, **QUICK)
    assert log.epochs == [1, 2]
    assert log.steps == 2 * log.steps_per_epoch
    shown = capsys.readouterr()
    assert shown.out == ""
    introduction, _, *epochs = shown.err.splitlines()
    assert introduction.startswith("digits-small-cnn-standard-seed0: given: epochs 2")
    assert [line.partition("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]


def test_nothing_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    adrbench.train("digits", method="standard", **QUICK)
    assert capsys.readouterr() == ("", "")


class Failing(adrbench.NoCallbacks):
    """Callbacks that fail after the first epoch."""

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        if epoch == 2:
            raise ZeroDivisionError("no such metric")


def test_callbacks_that_raise_are_one_sentence_and_the_run_resumes(here: Path) -> None:
    with pytest.raises(AdrbenchError) as caught:
        adrbench.train("digits", method="standard", callbacks=Failing(), **QUICK)
    assert str(caught.value) == (
        "step of the callbacks Failing raised ZeroDivisionError (no such metric); any saved "
        "state is kept."
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    log = Log()
    adrbench.train("digits", method="standard", callbacks=log, **QUICK)
    assert log.epochs == [2]


class Breaking(Net):
    """A network that ends the program in its 20th forward pass."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Breaking.passes += 1
        if Breaking.passes == 20:
            sys.exit(0)
        return super().forward(x)


def test_a_network_that_fails_in_training_is_one_sentence(here: Path) -> None:
    with pytest.raises(UserCodeError) as caught:
        adrbench.train("digits", method="standard", arch=Breaking, name="run", **QUICK)
    assert_one_line(str(caught.value))
    assert "Breaking with method standard raised SystemExit (0) in step " in str(caught.value)
    assert str(caught.value).endswith(" of the run; any saved state is kept.")


class OnlyFloat32(Net):
    """A network with an operation that does not take bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        if logits.dtype != torch.float32:
            raise TypeError("float32 only")
        return logits


def test_a_network_that_fails_in_bfloat16_gets_advice(here: Path) -> None:
    with pytest.raises(UserCodeError) as caught:
        adrbench.train("digits", method="standard", arch=OnlyFloat32, precision="bfloat16", **QUICK)
    assert str(caught.value).endswith("If it needs float32, give precision='float32'.")
    run = adrbench.train("digits", method="standard", arch=OnlyFloat32, **QUICK)
    assert run.record.precision == "float32"


def test_too_little_memory_has_advice_for_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("adrbench.training.step.train_step", fail)
    with pytest.raises(AdrbenchError, match="give batch_size=64, or another device; progress"):
        adrbench.train("digits", method="at", **QUICK)


class Interrupting(adrbench.NoCallbacks):
    """Callbacks during which the user presses Ctrl-C."""

    def step(self, epoch: int, step: int, loss: float, annealed: Any) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[Any]:
    """Handle SIGINT as an interactive Python does; a shell starts background jobs without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interruption_saves_and_says_where_the_run_is(handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt, match="at epoch 1 of 2, after 3 of 10 steps; saved"):
        adrbench.train("digits", method="standard", callbacks=Interrupting(), **QUICK)
    assert signal.getsignal(signal.SIGINT) is handler
    log = Log()
    adrbench.train("digits", method="standard", callbacks=log, **QUICK)
    assert log.steps == 2 * log.steps_per_epoch - 3


def test_a_run_shows_its_accuracy_and_can_be_pickled() -> None:
    run = adrbench.train("digits", method="adr+wa", arch=Net, name="run", **{**QUICK, "epochs": 3})
    best = run.best_epoch
    accuracies = [row.accuracy("average", "robust") for row in run.record.rows()]
    assert 100 * run.validation_accuracy == pytest.approx(max(accuracies))
    assert best.accuracy("average", "robust") == max(accuracies)
    assert repr(run) == (
        f"TrainedRun('checkpoints/run', robust val accuracy {run.validation_accuracy:.1%} at epoch "
        f"{best.epoch} of 3)"
    )
    again = pickle.loads(pickle.dumps(run))
    assert again == run
    state = again.load_model(selection="last").state_dict()
    saved = states_of(Path("checkpoints/run/last.pt"))["average"]["state"]
    assert all(torch.equal(value, saved[name]) for name, value in state.items())
    with pytest.raises(AdrbenchError, match="unknown selection 'final'"):
        run.load_model(selection="final")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    plain = check_given(
        {"epochs": 3, "eps": 0.5, "flip": True, "milestones": (0.25, 0.5), "seed": 2}
    )
    given = {
        "epochs": np.int64(3),
        "eps": np.float32(0.5),
        "flip": np.True_,
        "milestones": np.array([0.25, 0.5]),
        "seed": np.uint8(2),
    }
    found = check_given(given)
    assert found == plain
    assert [type(value) for value in found.values()] == [type(value) for value in plain.values()]


def test_a_setting_given_with_its_default_counts_as_given() -> None:
    assert check_given({"norm": "Linf", "sync_batch_norm": False, "epochs": None}) == {
        "norm": "Linf",
        "sync_batch_norm": False,
    }
    one = adrbench.train("digits", method="at", name="one", **QUICK)
    same = adrbench.train("digits", method="at", name="other", norm="Linf", seed=0, **QUICK)
    assert TrainConfig.from_json(one.record.config) == TrainConfig.from_json(same.record.config)


def test_the_signature_lists_every_setting_and_no_setting_is_an_argument() -> None:
    names = signature(adrbench.train).parameters.keys()
    assert names >= train_settings().keys()
    assert names - train_settings().keys() <= TRAIN_PARAMETERS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochz": 3}, "unknown setting 'epochz': did you mean epochs?"),
        ({"epochs": 0}, "epochs is 0: give a number at least 1"),
        ({"epochs": "3"}, "epochs is '3': write 3 without quotes"),
        ({"epochs": 2.5}, "epochs is 2.5: give a whole number"),
        ({"epochs": True}, "epochs is True: give a whole number"),
        ({"eps": "8/255"}, "eps is '8/255': write 8/255 without quotes"),
        ({"eps": "large"}, "eps is 'large': give a number"),
        ({"eps": np.zeros((3, 3))}, "eps is array([[0., 0., 0.]"),
        ({"eps": 8}, "write 8/255 if you meant that"),
        ({"flip": 1}, "flip is 1: give True or False"),
        ({"norm": 2}, "norm is 2: give a text"),
        ({"precision": "float16"}, "choose auto or float32 or tf32 or bfloat16"),
        ({"compile": True}, "compile is True: give 'auto' or 'on' or 'off'"),
        ({"precision": "tf32", "device": "cpu"}, "precision is 'tf32': cpu does not have it"),
        ({"milestones": (2,)}, "fractions of the run"),
        ({"milestones": ("a",)}, "give a tuple of numbers"),
        ({"milestones": 0.5}, "milestones is 0.5: give a tuple of numbers"),
        ({"save_minutes": "5"}, "save_minutes is '5': write 5 without quotes"),
        ({"save_minutes": None}, "save_minutes is None: give a number of minutes"),
        ({"save_minutes": -1}, "give a number of minutes, at least 0"),
        ({"method": "adrr"}, "did you mean adr"),
        ({"method": ["adr"]}, "method is ['adr']: give tokens joined by +"),
        ({"arch": "resnet"}, "did you mean resnet18"),
        ({"arch": 18}, "arch is 18: give a name, or a callable"),
        ({"arch": "no_such_module:net"}, "there is no module 'no_such_module'"),
        ({"activation": None}, "activation is None: give 'relu' or 'silu'"),
        ({"name": "a/b"}, "give a plain name"),
        ({"name": 3}, "name is 3: give a text"),
        ({"out": None}, "out is None: give a path"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"device": 0}, "device is 0: give 'auto'"),
        ({"force": "yes"}, "force is 'yes': give True or False"),
        ({"progress": 1}, "progress is 1: give True or False"),
        ({"callbacks": print}, "which has no function begin to call"),
        ({"callbacks": Log}, "pass an instance of a subclass of adrbench.NoCallbacks"),
        ({"dataset": 3}, "dataset is 3: give a name, a path or an adrbench.Dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    given: dict[str, Any], words: str, here: Path
) -> None:
    with pytest.raises(AdrbenchError) as caught:
        adrbench.train(**{"dataset": "digits", "method": "at", "epochs": 1, **given})
    assert_one_line(str(caught.value))
    assert words in str(caught.value)
    assert "--" not in str(caught.value)
    assert list(here.iterdir()) == []


def test_a_path_is_a_data_set(here: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    parts = {"x_train": pixels, "x_test": pixels}
    labels = dict.fromkeys(("y_train", "y_test"), np.arange(40) % 4)
    np.savez("own.npz", **parts, **labels)  # type: ignore[arg-type]
    settings = {**QUICK, "batch_size": 8}
    run = adrbench.train(Path("own.npz"), method="standard", arch="small-cnn", **settings)
    assert run.record.dataset == "own"


def test_a_torch_device_is_a_device() -> None:
    device = torch.device("cpu")
    run = adrbench.train("digits", method="standard", **{**QUICK, "device": device, "epochs": 1})
    assert run.record.history
