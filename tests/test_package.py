"""The public interface of `import adrbench`."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

import adrbench
from report_records import attack_record

ROOT = Path(adrbench.__file__).parents[1]


def test_the_public_names_exist_and_are_listed() -> None:
    assert adrbench.__all__ == [
        "ADR",
        "EMA",
        "AdrbenchError",
        "BuildContext",
        "Callbacks",
        "Component",
        "Dataset",
        "NoCallbacks",
        "Result",
        "Suite",
        "ThreatModel",
        "TrainedRun",
        "attacks",
        "evaluate",
        "load_examples",
        "load_model",
        "load_results",
        "setting",
        "train",
    ]
    for name in adrbench.__all__:
        assert name in dir(adrbench)
        assert getattr(adrbench, name).__name__.rpartition(".")[2] == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_weights'"):
        adrbench.load_weights  # noqa: B018


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "adrbench" / "py.typed").exists()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["adrbench"]


def test_both_stated_versions_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["version"] == adrbench.__version__


def test_every_dependency_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in settings["project"]["dependencies"]:
        name = requirement.split(">")[0]
        assert metadata.version(name)


def test_load_examples_gives_float_images_and_integer_labels() -> None:
    x, y = adrbench.load_examples("digits", n=3)
    assert (x.shape, x.dtype) == ((3, 1, 8, 8), torch.float32)
    assert 0 <= x.min() < x.max() <= 1
    assert (y.shape, y.dtype) == ((3,), torch.int64)


def test_load_results_gives_a_row_per_evaluation(tmp_path: Path) -> None:
    from adrbench.results.records import write_record

    write_record(tmp_path / "deep" / "one.json", attack_record(8_000, 5_000, method="adr"))
    frame = adrbench.load_results(tmp_path)
    assert frame["robust_accuracy"].tolist() == [50.0]
    assert frame["row"].tolist() == ["adr"]


def test_adr_rectifies_labels_in_a_custom_training_loop() -> None:
    rectifier = adrbench.ADR(total_steps=10)
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    targets = rectifier(logits, torch.tensor([0, 1]), step=4)
    assert torch.allclose(targets.sum(1), torch.ones(2))
    assert targets.argmax(1).tolist() == [0, 1]
    assert (targets > 0).all()
