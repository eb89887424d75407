"""`adrbench.evaluate`: any model from Python, with the outcomes and records of the command line."""

import doctest
import importlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

import adrbench
from adrbench.attacks import PGD, Suite
from adrbench.data import Images
from adrbench.errors import AdrbenchError, RecordError, UsageError
from adrbench.models import frozen as frozen_module
from adrbench.registry import UserCodeError
from adrbench.results.outputs import read_outputs
from adrbench.results.records import AttackRecord, read_record
from messages import assert_one_line
from runner import QUICK, succeed
from tiny import make_images, train_small_net

IMAGES = make_images(40, classes=5, size=6)
X, Y = IMAGES.pixels / 255, IMAGES.labels
MODEL = train_small_net(IMAGES, classes=5)
EPS = 0.03


def evaluate(model: nn.Module = MODEL, x: Any = X, y: Any = Y, **more: Any) -> adrbench.Result:
    settings: dict[str, Any] = {"suite": "pgd-5", "eps": EPS, **more}
    result: adrbench.Result = adrbench.evaluate(model, x, y, **settings)
    return result


@pytest.mark.slow
def test_autoattack_has_the_outcomes_of_the_package() -> None:
    train, test = (adrbench.load_examples("digits", split=split) for split in ("train", "test"))
    model = train_small_net(Images((255 * train[0]).round().byte(), train[1]), classes=10)
    x, y = test[0][:6], test[1][:6]
    result = adrbench.evaluate(model, x, y, suite="autoattack", eps=0.08, seed=3, batch_size=4)
    package = AutoAttack(model.requires_grad_(False), norm="Linf", eps=0.08, seed=3)
    x_adv, _ = package.run_standard_evaluation(x, y, batch_size=4)
    with torch.no_grad():
        expected = (model(x_adv).argmax(1) == y).numpy()
    assert (result.robust == expected).all()
    assert 0 < result.robust.sum() < result.clean.sum()


def test_the_result_counts_what_the_outcomes_say() -> None:
    result = evaluate(name="mine", dataset="patterns")
    assert result.clean_accuracy == result.clean.mean()
    assert result.robust_accuracy == result.robust.mean()
    assert [stage.name for stage in result.stages] == ["pgd-5"]
    record = result.record
    assert isinstance(record, AttackRecord)
    assert (record.run, record.dataset, record.suite, record.n) == ("mine", "patterns", "pgd-5", 40)
    assert repr(result).startswith("Result(mine pgd-5 Linf 0.03: clean ")


def test_a_saved_result_is_in_the_report_beside_that_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    succeed("train", "digits", "--method", "at", "--name", "run", *QUICK)
    succeed("attack", "checkpoints/run/last.pt", "--suite", "pgd-2", "--n", "50")
    x, y = adrbench.load_examples("digits", n=50)
    model = adrbench.load_model("checkpoints/run/last.pt")
    result = adrbench.evaluate(
        model, x, y, suite="pgd-2", eps=0.1, name="my network", dataset="digits"
    )
    path = result.save("results")
    assert read_record(path) == result.record
    frame = adrbench.load_results("results")
    assert frame["n"].tolist() == [50, 50]
    assert len(set(frame["robust_accuracy"])) == 1
    assert "my network" in succeed("report", "results").out


def test_an_attack_object_a_suite_of_them_and_a_name_are_the_same_attack() -> None:
    named = evaluate(suite="pgd-5")
    one = evaluate(suite=PGD(steps=5))
    suite = evaluate(suite=Suite(name="alone", stages=[PGD(steps=5)]))
    assert (one.robust == named.robust).all()
    assert (suite.robust == named.robust).all()
    assert (one.record.suite, one.record.parameters) == ("pgd-5", named.record.parameters)
    assert suite.record.suite == "alone"
    assert suite.record.parameters == {
        "pgd-5": {
            "class": "PGD",
            "threat": {"class": "ThreatModel", "norm": "Linf", "eps": EPS},
            "steps": 5,
            "alpha": EPS / 4,
            "seed": 0,
            "restarts": 1,
            "loss": "cross-entropy",
            "random_start": True,
        }
    }


class Brighter:
    """An attack of one's own."""

    name = "brighter"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return (x + EPS).clamp(0, 1)


class Saturated(nn.Module):
    """`MODEL` with logits so large that the cross-entropy has no gradient in float32."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = MODEL(x)
        return 1e4 * logits


def test_an_attack_object_has_the_reliability_checks_of_its_name() -> None:
    named = evaluate(Saturated(), suite="pgd-5").warnings
    assert evaluate(Saturated(), suite=PGD(steps=5)).warnings == named
    assert named != evaluate(Saturated(), suite=PGD(steps=5, loss="margin")).warnings


def test_an_attack_of_ones_own() -> None:
    result = evaluate(suite=Brighter())
    with torch.no_grad():
        fooled = (MODEL((X + EPS).clamp(0, 1)).argmax(1) != Y).numpy()
    assert (result.robust == (result.clean & ~fooled)).all()


class Mode(nn.Module):
    """A model with every state that an evaluation must leave as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MODEL
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(1).eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.dropout(x))
        return logits


def test_the_model_comes_back_as_it_was() -> None:
    model = Mode()
    model.zero_grad()
    model.dropout.train()
    next(model.network.parameters()).requires_grad_(False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    evaluate(model)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_images_as_arrays_and_images_between_levels() -> None:
    assert (evaluate(x=X.numpy(), y=Y.numpy()).robust == evaluate().robust).all()
    shifted = (X * 0.999 + 0.0005).double()
    result = evaluate(x=shifted, suite="clean")
    with torch.no_grad():
        assert (result.clean == (MODEL(shifted.float()).argmax(1) == Y).numpy()).all()
    assert result.record.data_sha256 != evaluate(suite="clean").record.data_sha256


def test_adversarial_examples_are_kept_on_request(tmp_path: Path) -> None:
    assert evaluate().adversarial is None
    result = evaluate(keep_adversarial=True)
    assert result.adversarial is not None
    with torch.no_grad():
        assert ((MODEL(result.adversarial).argmax(1) == Y).numpy() == result.robust).all()
    result.save_adversarial(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["x_adv"].shape == (40, 1, 6, 6)
    with pytest.raises(AdrbenchError, match="keep_adversarial=True"):
        evaluate().save_adversarial(tmp_path / "y.npz")


class Fragile(nn.Module):
    """`MODEL`, which stops the evaluation after a number of passes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MODEL
        self.left = 1_000_000

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("it cannot be copied")

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        logits: Tensor = self.network(x)
        return logits


def test_an_interrupted_evaluation_resumes_from_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so in the arithmetic of its search, also where another one is the default."""
    model, state = Fragile(), tmp_path / "mine.state"
    more: dict[str, Any] = {
        "suite": Suite(name="two", stages=[PGD(steps=3), PGD(steps=9, loss="margin")]),
        "batch_size": 8,
        "keep_adversarial": True,
    }
    whole = evaluate(model, **more)
    model.left = 60
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, state_path=state, **more)
    assert (tmp_path / "mine.0.state").exists()
    model.left = 1_000_000
    with pytest.raises(RecordError, match="the progress of another evaluation"):
        evaluate(model, state_path=state, **more, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("adrbench.runtime.arithmetic.has_tensor_cores", lambda device: True)
        resumed = evaluate(model, state_path=state, **more)
    assert resumed.record.searched == "float32"
    assert (resumed.robust == whole.robust).all()
    assert resumed.adversarial is not None
    assert torch.equal(resumed.adversarial, whole.adversarial)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_result_never_replaces_another_silently(tmp_path: Path) -> None:
    result = evaluate()
    path = result.save(tmp_path)
    assert result.save(tmp_path) == path
    path.write_text("{}")
    with pytest.raises(RecordError, match="give force=True"):
        result.save(tmp_path)
    result.save(tmp_path, force=True)
    assert read_record(path) == result.record


def test_progress_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate()
    assert capsys.readouterr() == ("", "")
    evaluate(progress=True, name="mine")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mine pgd-5 Linf 0.03, in float32\n  clean ")


class InPlace(nn.Module):
    """A model that writes into the images it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MODEL

    def forward(self, x: Tensor) -> Tensor:
        x = x - 0.01 if x.requires_grad else x.sub_(0.01)
        logits: Tensor = self.network(x)
        return logits


def test_the_images_of_the_caller_are_never_written_to() -> None:
    x = X * 0.5 + 0.1023
    before = x.clone()
    results = [evaluate(InPlace(), x, suite="pgd-2") for _ in range(2)]
    assert torch.equal(x, before)
    assert results[0].record.data_sha256 == results[1].record.data_sha256
    assert (results[0].robust == results[1].robust).all()


class WithoutGradients(nn.Module):
    """A model that raises where gradients are needed."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise ValueError("inference only")
        logits: Tensor = MODEL(x)
        return logits


def test_a_model_that_raises_under_gradients_is_one_error() -> None:
    with pytest.raises(AdrbenchError, match=r"raised ValueError \(inference only\)"):
        evaluate(WithoutGradients())


class Meddling:
    """An attack that writes into its indices, and changes the mode of the model as others do."""

    name = "meddling"

    def __init__(self) -> None:
        self.modes: list[bool] = []

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        self.modes.append(model.training)
        model.train()
        indices.zero_()
        return x


def test_an_attack_can_change_neither_indices_nor_the_mode_it_is_judged_in() -> None:
    model = nn.Sequential(nn.Dropout(0.9), MODEL)
    attack = Meddling()
    result = evaluate(model, suite=attack, batch_size=16)
    assert (result.robust == result.clean).all()
    assert set(attack.modes) == {False}


@pytest.mark.parametrize("name", ["autoattack", "pgd-20", "clean"])
def test_an_attack_cannot_take_the_name_of_a_built_in_one(name: str) -> None:
    attack = Meddling()
    attack.name = name
    for suite in (attack, Suite(name=name, stages=[PGD(steps=1)]), PGD(name=name, steps=1)):
        with pytest.raises(AdrbenchError, match="has the name of a built-in one"):
            evaluate(suite=suite)


class Returning(nn.Module):
    """A model that returns something else than logits."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"model": len}, "give a torch.nn.Module"),
    "raises": (
        {"model": Returning(KeyError("stem"))},
        "KeyError ('stem'): give the dataset",
    ),
    "a dictionary": (
        {"model": Returning({"logits": X})},
        "a dict, not a tensor: give a network",
    ),
    "maps": ({"model": nn.Conv2d(1, 3, 3)}, "returned a tensor of shape (8, 3, 4, 4)"),
    "integers out": (
        {"model": nn.Sequential(nn.Flatten(), Returning(torch.ones(8, 5, dtype=torch.int64)))},
        "returned outputs of type torch.int64",
    ),
    "lazy": (
        {"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(5))},
        "call the network on a batch",
    ),
    "on meta": ({"model": nn.Linear(6, 5, device="meta")}, "without values, weight, on the meta"),
    "no name": ({"name": None}, "name is None"),
    "one class": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 1))}, "shape (8, 1)"),
    "integers": ({"x": IMAGES.pixels}, "x has type uint8"),
    "beyond one": ({"x": X * 255}, "x ranges from 0 to 255"),
    "negative": ({"x": X - 0.5}, "x ranges from -0.5 to 0.5"),
    "channels last": ({"x": X.permute(0, 2, 3, 1)}, "channels last"),
    "three axes": ({"x": X[:, 0]}, "x has shape (40, 6, 6)"),
    "no images": ({"x": X[:0], "y": Y[:0]}, "at least one"),
    "not a number": ({"x": X * torch.nan}, "not finite"),
    "a list": ({"x": [None]}, "give a"),
    "labels beyond": ({"y": Y + 5}, "classes, 0 to 4"),
    "labels below": ({"y": Y - 5}, "labels start at 0"),
    "float labels": ({"y": Y.float()}, "labels must be integers"),
    "one-hot labels": ({"y": torch.eye(5, dtype=torch.int64)[Y]}, "y has shape (40, 5)"),
    "fewer labels": ({"y": Y[:3]}, "x has 40 images but y has 3 labels"),
    "suite": ({"suite": "autoatack"}, "did you mean autoattack"),
    "no suite": ({"suite": 3}, "suite is of type int"),
    "norm": ({"norm": "L1"}, "unknown norm 'L1'"),
    "eps": ({"eps": 8}, "write 8/255 if you meant that"),
    "batch size": ({"batch_size": 0}, "batch_size is 0"),
    "device": ({"device": "tpu"}, "device is 'tpu'"),
    "precision": ({"precision": "half"}, "precision is 'half': choose auto or float32"),
    "tf32": ({"precision": "tf32"}, "precision is 'tf32': cpu does not have it"),
    "name": ({"name": " "}, "give a name"),
    "no dataset": ({"dataset": ""}, "dataset is ''"),
    "eps in quotes": ({"eps": "8/255"}, "such as 8/255 without quotes"),
    "no eps": ({"eps": []}, "eps is empty"),
    "one eps of two": ({"eps": [0.1, None]}, "eps is None: give a number"),
    "batch size in quotes": ({"batch_size": "8"}, "batch_size is '8': write 8 without quotes"),
    "half a batch": ({"batch_size": 2.5}, "batch_size is 2.5: give a whole number"),
    "half a seed": ({"seed": 1.5}, "seed is 1.5: give a whole number"),
    "device of torch": ({"device": torch.device("cpu")}, "such as 'cuda:0'"),
    "class of an attack": ({"suite": PGD}, "suite is the class PGD"),
    "state of several": ({"eps": [0.1, 0.2], "state_path": "x"}, "give one eps with it"),
    "import path": ({"suite": "no_such_module:suite"}, "there is no module 'no_such_module'"),
}


def test_several_radii_are_several_evaluations_of_a_model_that_is_frozen_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    radii = [EPS, 3 * EPS]
    singles = [evaluate(eps=eps) for eps in radii]
    fold = Mock(wraps=frozen_module.fold_batch_norm)
    monkeypatch.setattr(frozen_module, "fold_batch_norm", fold)
    results = adrbench.evaluate(MODEL, X, Y, suite="pgd-5", eps=radii)
    assert fold.call_count == 1
    for single, result in zip(singles, results, strict=True):
        assert (single.robust == result.robust).all()
        assert single.record.threat_model == result.record.threat_model
        assert single.record.weights_sha256 == result.record.weights_sha256
    assert results[0].robust_accuracy > results[1].robust_accuracy


def test_a_result_can_be_pickled_and_saved_afterwards(tmp_path: Path) -> None:
    result = evaluate(keep_adversarial=True)
    copy = pickle.loads(pickle.dumps(result))
    assert copy.save(tmp_path) == result.save(tmp_path)
    copy.save_adversarial(tmp_path / "x.npz")
    assert repr(copy) == repr(result)


@pytest.mark.parametrize("name", [".hidden", "..", "a/b", "-", "my network"])
def test_a_result_of_any_name_is_in_the_report(name: str, tmp_path: Path) -> None:
    evaluate(name=name).save(tmp_path)
    assert adrbench.load_results(tmp_path)["row"].tolist() == [name]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    changes, words = BAD[case]
    with pytest.raises(AdrbenchError) as caught:
        evaluate(**changes)
    assert_one_line(str(caught.value))
    assert words in str(caught.value)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        "adrbench.api.evaluate",
        "adrbench.attacks.pgd",
        "adrbench.attacks.suites",
        "adrbench.attacks.autoattack",
    ],
)
def test_the_examples_in_docstrings_run(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_outputs_are_returned_and_saved_beside_the_record(tmp_path: Path) -> None:
    plain, result = evaluate(name="mine"), evaluate(name="mine", keep_outputs=True)
    assert plain.outputs is None
    assert (result.robust == plain.robust).all()
    outputs = result.outputs
    assert outputs is not None
    with torch.no_grad():
        np.testing.assert_allclose(outputs.clean_logits, MODEL(X).numpy(), rtol=1e-4, atol=1e-5)
    path = plain.save(tmp_path)
    assert [one.suffix for one in tmp_path.iterdir()] == [".json"]
    result.save(tmp_path)
    record = read_record(path)
    assert isinstance(record, AttackRecord)
    assert record.outputs is not None
    assert replace(record, outputs=None) == plain.record, "only the file is added"
    found = read_outputs(path.with_suffix(".npz"), record.outputs)
    np.testing.assert_array_equal(found.adversarial_logits, outputs.adversarial_logits)
    path.with_suffix(".npz").unlink()
    plain.save(tmp_path)
    assert read_record(path) == record
    result.save(tmp_path)
    assert path.with_suffix(".npz").exists()
    assert result.save(tmp_path / "other").with_suffix(".npz").exists()
    plain.save(tmp_path, force=True)
    assert not path.with_suffix(".npz").exists()


def test_outputs_of_several_radii() -> None:
    results = evaluate(eps=[0.02, 0.04], keep_outputs=True)
    found = [float(one.outputs.linf.max()) for one in results]  # type: ignore[attr-defined]
    assert found == pytest.approx([0.02, 0.04], abs=1e-5)


def test_suites_without_outputs_are_refused() -> None:
    with pytest.raises(UsageError, match="suite autoattack has no outputs to keep"):
        evaluate(suite="autoattack", keep_outputs=True)
    with pytest.raises(UsageError, match="suite hand has no outputs to keep"):
        evaluate(suite=Hand(), keep_outputs=True)


class Hand:
    """An attack of a user's own, which is not said to maximize a loss."""

    name = "hand"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return x


#: The number of images in each batch that `Stopping` was called with.
CALLS: list[int] = []


class KilledError(Exception):
    """The end of a process."""


class Stopping(Hand):
    """An attack that is killed on its third batch of outputs."""

    name = "stopping"

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        CALLS.append(len(x))
        if len(CALLS) == 3:
            raise KilledError
        return torch.where(x < 0.5, x + 0.01, x - 0.01)


def test_interrupted_outputs_are_resumed_from_the_state(tmp_path: Path) -> None:
    CALLS.clear()
    settings: dict[str, Any] = {"suite": Stopping(), "keep_outputs": True, "batch_size": 10}
    with pytest.raises(UserCodeError, match="KilledError"):
        evaluate(**settings, state_path=tmp_path / "run")
    assert len(list(tmp_path.glob("run.outputs.*.npz"))) == 2
    result = evaluate(**settings, state_path=tmp_path / "run")
    assert len(CALLS) == 5, "the batches that were finished are not repeated"
    assert result.outputs is not None
    assert result.outputs.linf == pytest.approx(np.full(40, 0.01), abs=1e-6)
    assert list(tmp_path.iterdir()) == []
