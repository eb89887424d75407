"""Saved states of evaluations are never mixed up, nor used by two processes at a time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adrbench
from adrbench.attacks import PGD, Suite
from adrbench.errors import AdrbenchError, NonFiniteLogitsError, RecordError
from adrbench.evaluation.adversarial import read_examples
from adrbench.evaluation.batch_files import BatchFiles
from adrbench.evaluation.progress import ProgressFiles
from adrbench.runtime.files import write_atomically
from messages import assert_one_line
from tiny import make_images, train_small_net
from unreadable_files import UNREADABLE

IMAGES = make_images(40, classes=5, size=6)
X, Y = IMAGES.pixels / 255, IMAGES.labels
MODEL = train_small_net(IMAGES, classes=5)
SMALL_EPS, LARGE_EPS = 0.02, 0.2


def evaluate(**more: Any) -> adrbench.Result:
    settings: dict[str, Any] = {
        "model": MODEL,
        "suite": Suite(name="two", stages=[PGD(steps=1), PGD(steps=4, loss="margin")]),
        "eps": SMALL_EPS,
        "batch_size": 8,
        "keep_adversarial": True,
        **more,
    }
    result: adrbench.Result = adrbench.evaluate(x=X, y=Y, **settings)
    return result


class Killed(BaseException):
    """Ends an evaluation without any of its cleanup, as SIGKILL would."""


class Killing:
    """The second attack of `evaluate`'s suite, which is killed in its third batch."""

    name = "pgd-4-margin"

    def __init__(self) -> None:
        self.batches = 0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        self.batches += 1
        if self.batches == 3:
            raise Killed
        return x + 0.99 * LARGE_EPS * (0.5 - x).sign()


def leave_state(state_path: Path) -> None:
    """Leave the state of an evaluation with a larger radius, which was killed."""
    suite = Suite(name="two", stages=[PGD(steps=1), Killing()])
    with pytest.raises(Killed):
        evaluate(suite=suite, eps=LARGE_EPS, state_path=state_path)
    assert len(list(state_path.parent.glob("*.npz"))) > 10


def distance(result: adrbench.Result) -> float:
    assert result.adversarial is not None
    return float((result.adversarial - X).abs().max())


def test_examples_of_another_evaluation_do_not_enter_a_later_one(tmp_path: Path) -> None:
    leave_state(tmp_path / "run")
    (tmp_path / "run.0.state").unlink()
    result = evaluate(state_path=tmp_path / "run")
    assert 0 < distance(result) <= SMALL_EPS + 1e-6
    assert torch.equal(result.adversarial, evaluate().adversarial)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_they_are_removed_also_where_examples_are_not_kept_at_first(tmp_path: Path) -> None:
    leave_state(tmp_path / "run")
    (tmp_path / "run.0.state").unlink()
    suite = Suite(name="two", stages=[PGD(steps=1), Killing()])
    with pytest.raises(Killed):
        evaluate(suite=suite, state_path=tmp_path / "run", keep_adversarial=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.0.state"]


@pytest.mark.parametrize(
    ("store", "num_stores", "eps"),
    [(ProgressFiles, 1, SMALL_EPS), (BatchFiles, 2, SMALL_EPS), (BatchFiles, 2, 0.1)],
)
def test_a_kill_while_the_state_is_removed_loses_nothing(
    store: type, num_stores: int, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next evaluation at the path is the same one, or one with another radius."""
    calls = 0

    def kill(files: object) -> None:
        nonlocal calls
        calls += 1
        if calls > num_stores:  # the first calls are at the start of the evaluation
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", kill)
        with pytest.raises(Killed):
            evaluate(state_path=tmp_path / "run")
    assert list(tmp_path.glob("*.npz")) != []
    result = evaluate(state_path=tmp_path / "run", eps=eps)
    assert torch.equal(result.adversarial, evaluate(eps=eps).adversarial)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_state_is_kept_until_the_record_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("adrbench.evaluation.run.make_record", kill)
        with pytest.raises(Killed):
            evaluate(state_path=tmp_path / "run")
    assert (tmp_path / "run.0.state").exists()
    evaluate(state_path=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_of_a_model_without_finite_logits(tmp_path: Path) -> None:
    class Diverging(nn.Module):
        """A model whose logits are finite on the first images only."""

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = MODEL(x)
            return logits + 0 * (x - X[-1]).flatten(1).abs().sum(1, keepdim=True).log()

    with pytest.raises(NonFiniteLogitsError):
        evaluate(model=Diverging(), state_path=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_path_with_a_longer_name_is_left_alone(tmp_path: Path) -> None:
    leave_state(tmp_path / "run.b")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    evaluate(state_path=tmp_path / "run")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class RemovingLock(Killing):
    """The second attack, in whose third batch another process takes over the state at `stem`."""

    def __init__(self, stem: Path) -> None:
        super().__init__()
        self.stem = stem
        self.before: dict[str, bytes] = {}

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        try:
            return super().perturb(model, x, y, indices)
        except Killed:
            self.stem.with_name("run.lock").unlink()
            self.stem.with_name("run.lock").write_bytes(b"of another process")
            self.before = read_all(self.stem.parent)
            return x


def read_all(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_an_evaluation_whose_lock_is_replaced_writes_nothing_more(tmp_path: Path) -> None:
    attack = RemovingLock(tmp_path / "run")
    with pytest.raises(AdrbenchError, match=r"run\.lock was removed or replaced, or its") as caught:
        evaluate(suite=Suite(name="two", stages=[PGD(steps=1), attack]), state_path=attack.stem)
    assert_one_line(str(caught.value))
    assert read_all(tmp_path) == attack.before


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["run.0.state", "run.2-0.npz"])
def test_state_that_is_no_file_of_a_possible_size_is_refused(
    name: str, kind: str, tmp_path: Path
) -> None:
    def start() -> None:
        suite = Suite(name="two", stages=[PGD(steps=1), Killing()])
        evaluate(suite=suite, state_path=tmp_path / "run")

    with pytest.raises(Killed):
        start()
    (tmp_path / name).unlink()
    UNREADABLE[kind](tmp_path / name)
    with pytest.raises(RecordError, match=r"(are|is) damaged \(it (is|has) .*\): give") as caught:
        start()
    assert_one_line(str(caught.value))


def test_examples_of_another_size_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    outcomes = np.zeros(4, np.bool_)
    labels = np.zeros(4, np.int64)
    arrays: dict[str, Any] = {"y": labels, "index": labels, "clean": outcomes, "robust": outcomes}
    np.savez_compressed(path, x_adv=np.zeros((4, 1, 250, 1000), np.float32), **arrays)
    assert path.stat().st_size < 10_000
    assert read_examples(path, (4, 1, 250, 1000))["x_adv"].shape == (4, 1, 250, 1000)
    with pytest.raises(
        RecordError, match=r"^x_adv has type float32 and shape \(4, 1, 250, 1000\), no"
    ):
        read_examples(path, (4, 1, 250, 999))
    with pytest.raises(RecordError, match="it cannot be read") as caught:
        read_examples(path, (4, 1, 2, 2))
    assert str(caught.value.__cause__).startswith("it unpacks to 4,000,")


@pytest.mark.parametrize("name", ["run.0.state", "run.1-0.npz", "run.outputs.1-0.npz"])
def test_a_directory_in_place_of_a_file_of_the_state_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(AdrbenchError) as caught:
        evaluate(state_path=tmp_path / "run")
    assert_one_line(str(caught.value))
    is_read = name.endswith(".state")
    words = "is damaged (it is not a file)" if is_read else "it is a directory; remove it yourself"
    assert name in str(caught.value)
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


HOLD = """
import sys
from pathlib import Path
from adrbench.runtime.locks import exclusive
with exclusive(Path(sys.argv[1]), of="it", instead="wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_use_one_state(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AdrbenchError, match="or give another state_path") as caught:
        evaluate(state_path=tmp_path / "run")
    holder.communicate()
    assert f"run is being written by process {holder.pid}" in str(caught.value)
    assert_one_line(str(caught.value))
    evaluate(state_path=tmp_path / "run")


def make_read_only(directory: Path) -> Path:
    (directory / "file").touch()
    return directory / "file" / "run"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda directory: "", "state_path is '': give the path of a file"),
        (lambda directory: ".", "state_path is '.': give the path of a file"),
        (lambda directory: ".state", "state_path is '.state': give the path of a file"),
        (lambda directory: "a\0b", "give the path of a file"),
        (lambda directory: 5, "state_path is 5: give the path of a file"),
        (lambda directory: directory, "my-evaluation'."),
        (make_read_only, "Not a directory; choose another directory"),
        (lambda directory: directory / ("x" * 250), "is too long by"),
    ],
)
def test_a_useless_path_is_refused_before_the_model_is_called(
    make: Callable[[Path], Any], words: str, tmp_path: Path
) -> None:
    class Uncalled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(AdrbenchError) as caught:
        evaluate(model=Uncalled(), state_path=make(tmp_path))
    assert words in str(caught.value)
    assert_one_line(str(caught.value))


def test_advice_about_the_state_of_another_evaluation_is_for_python(tmp_path: Path) -> None:
    leave_state(tmp_path / "run")
    with pytest.raises(RecordError) as caught:
        evaluate(state_path=tmp_path / "run")
    assert str(caught.value).endswith("or give another state_path, or remove the file.")
    write_atomically(tmp_path / "run.0.state", b"{}")
    with pytest.raises(RecordError, match=r"is damaged .*: give another state_path, or remove"):
        evaluate(state_path=tmp_path / "run")
