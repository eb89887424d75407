"""--normalize: a name, "none", or numbers, and one sentence for anything else."""

from pathlib import Path

import pytest
import torch

from adrbench.data import DATASETS
from adrbench.errors import UsageError
from adrbench.evaluation.targets import TargetModel, TargetOptions, resolve_targets
from adrbench.evaluation.targets.normalization import parse_normalization, per_channel
from adrbench.models.architectures import build_model
from messages import assert_one_sentence

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("cifar10", CIFAR10),
        (" CIFAR10 ", CIFAR10),
        ("0.4914,0.4822,0.4465/0.2471,0.2435,0.2616", CIFAR10),
        ("0.5/0.25", ((0.5,), (0.25,))),
        (".5, .4 / 1, 1e-1", ((0.5, 0.4), (1.0, 0.1))),
        ("0/1", ((0.0,), (1.0,))),
    ],
)
def test_names_and_numbers_are_parsed(
    text: str, expected: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> None:
    assert parse_normalization(text) == expected


def test_every_data_set_with_constants_has_a_name() -> None:
    for name, source in DATASETS.items():
        assert parse_normalization(name) == (source.mean, source.std)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cifar", ["unknown normalization 'cifar'", "did you mean cifar10"]),
        ("imagine", ["unknown normalization 'imagine'"]),
        ("", ["unknown normalization ''", "MEAN/STD such as 0.5,0.5,0.5/0.25,0.25,0.25"]),
        ("0.5", ["'0.5' is not MEAN/STD", "such as", "or one of digits, cifar10"]),
        ("0.5,0.5,0.5", ["is not MEAN/STD"]),
        ("0.5/0.5/0.5", ["is not MEAN/STD"]),
        ("0.5;0.5/0.25;0.25", ["is not MEAN/STD"]),
        ("/", ["is not MEAN/STD"]),
        ("0.5,/0.5", ["is not MEAN/STD"]),
        ("cifar10/cifar10", ["is not MEAN/STD"]),
        ("0.5/0", ["has a std of 0", "above 0"]),
        ("0.5,0.5,0.5/0.2,0.2,0.0", ["has a std of 0"]),
        ("125.3,123.0,113.9/63.0,62.1,66.7", ["pixels in [0, 1]", "divide mean and std by 255"]),
        ("0.5/63", ["divide mean and std by 255"]),
        ("-0.5/0.5", ["negative or not finite"]),
        ("0.5/-0.5", ["negative or not finite"]),
        ("nan/0.5", ["negative or not finite"]),
        ("0.5/nan", ["negative or not finite"]),
        ("0.5/inf", ["negative or not finite"]),
    ],
)
def test_anything_else_is_rejected_in_one_sentence(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        TargetOptions(normalize=text)
    assert_one_sentence(str(caught.value), *words)


def test_one_number_stands_for_all_channels() -> None:
    assert per_channel(((0.5,), (0.2, 0.3)), 2) == ((0.5, 0.5), (0.2, 0.3))
    assert per_channel(((), ()), 3) == ((), ())


def resolve(path: Path, normalize: str) -> TargetModel:
    options = TargetOptions(arch="small-cnn", dataset="digits", normalize=normalize, eps=0.1)
    (target,) = resolve_targets(str(path), options)
    return target


def test_the_numbers_are_those_of_the_model_and_count_as_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = build_model("small-cnn", num_classes=10, in_channels=1).state_dict()
    torch.save({k: v for k, v in state.items() if k not in ("mean", "std")}, path)
    ours = DATASETS["digits"]
    assert ours.mean is not None
    assert ours.std is not None
    by_numbers = resolve(path, f"{ours.mean[0]}/{ours.std[0]}")
    assert by_numbers.model.get_buffer("mean").flatten().tolist() == pytest.approx(ours.mean)
    assert by_numbers.model.get_buffer("std").flatten().tolist() == pytest.approx(ours.std)
    assert by_numbers.weights_sha256 == resolve(path, "digits").weights_sha256
    others = {resolve(path, text).weights_sha256 for text in ("none", "0.5/0.25", "0.5/0.26")}
    assert len(others | {by_numbers.weights_sha256}) == 4
    with pytest.raises(UsageError) as caught:
        resolve(path, "0.5,0.5,0.5/0.25")
    assert_one_sentence(str(caught.value), "has 3 values for images of 1 channels")
