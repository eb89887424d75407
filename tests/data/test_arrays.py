"""Data sets made of a user's arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adrbench
from adrbench.data import Dataset, load_dataset, load_examples, load_split
from adrbench.errors import AdrbenchError, DataError, UsageError
from messages import assert_one_sentence

NOWHERE = Path("nowhere")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randint(256, (40, 3, 4, 4), dtype=torch.uint8, generator=GENERATOR)
Y = torch.arange(40) % 4


def make(**changes: Any) -> Dataset:
    """Return a data set with other arguments than the usual ones."""
    arguments = {
        "name": "noise",
        "x_train": X,
        "y_train": Y,
        "x_test": X[:8],
        "y_test": Y[:8],
    }
    return Dataset.from_arrays(**{**arguments, **changes})


def test_tensors_and_arrays_make_the_same_data_set() -> None:
    one = make()
    other = make(x_train=X.numpy(), y_train=Y.numpy().astype(np.int32), y_test=Y[:8].to(torch.int8))
    for dataset in (one, other):
        assert (dataset.name, dataset.num_classes, dataset.channels) == ("noise", 4, 3)
        assert torch.equal(dataset.train.pixels, X)
        assert torch.equal(dataset.train.labels, Y)
        assert len(dataset.val) == 0
        expected = (X / 255).transpose(0, 1).flatten(1)
        torch.testing.assert_close(torch.tensor(dataset.mean), expected.mean(1))
        torch.testing.assert_close(torch.tensor(dataset.std), expected.std(1, correction=0))
    assert one.train.sha256() == other.train.sha256()


def test_arrays_that_cannot_be_shared_are_copied() -> None:
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    assert torch.equal(make(x_train=frozen).train.pixels, X)
    assert torch.equal(make(x_train=X.numpy()[::-1]).train.pixels, X.flip(0))
    assert torch.equal(make(x_train=list(X), y_train=Y.tolist()).train.pixels, X)


def test_training_holds_images_out_of_a_data_set_without_a_validation_part() -> None:
    loaded = load_dataset(make(), data_dir=NOWHERE, val_size=8, seed=1)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (32, 8, 8)
    assert loaded.val_is_drawn
    assert loaded.val.labels.bincount().tolist() == [2, 2, 2, 2]
    assert loaded.training_images_sha256 == make().train.sha256()
    assert (loaded.mean, loaded.std) == (make().mean, make().std)
    own = load_dataset(make(x_val=X[:4], y_val=Y[:4]), data_dir=NOWHERE)
    assert (len(own.train), len(own.val), own.val_is_drawn) == (40, 4, False)


def test_given_statistics_are_kept() -> None:
    made = make(mean=np.array([0.5] * 3), std=(0.25, 1, 1), num_classes=np.int64(9))
    loaded = load_dataset(made, data_dir=NOWHERE)
    assert (type(loaded.num_classes), loaded.num_classes) == (int, 9)
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.25, 1.0, 1.0))


def test_a_test_part_suffices_for_examples() -> None:
    dataset = make(x_train=None, y_train=None, num_classes=9)
    images, source = load_split(dataset, "test", data_dir=NOWHERE)
    assert (len(images), source.num_classes, source.name) == (8, 9, "noise")
    x, y = load_examples(dataset, 3)
    assert torch.equal(x, X[:3] / 255)
    assert torch.equal(y, Y[:3])
    with pytest.raises(DataError, match="noise has no train images"):
        load_dataset(dataset, data_dir=NOWHERE)


BAD: dict[str, tuple[dict[str, Any], type[AdrbenchError], str]] = {
    "floats": ({"x_train": X / 255}, DataError, "x_train of data set 'noise' has type float32"),
    "NaN": (
        {"x_test": np.full((8, 3, 4, 4), np.nan)},
        DataError,
        "type float64: .*by 255 first",
    ),
    "integers": (
        {"x_test": X[:8].int()},
        DataError,
        r"int32: .* 0 to 255\.$",
    ),
    "objects": ({"x_test": np.array([None] * 8)}, DataError, "x_test .* has type object"),
    "a list": (
        {"x_test": [1, 2]},
        DataError,
        "has type int64: it must be uint8",
    ),
    "channels last": (
        {"x_train": torch.zeros(40, 8, 8, 3, dtype=torch.uint8)},
        DataError,
        r"shape \(40, 8, 8, 3\), channels last: give .*permute\(0, 3, 1, 2\)",
    ),
    "no channels": ({"x_train": X[:, 0]}, DataError, r"has shape \(40, 4, 4\): give at least one"),
    "no images": ({"x_test": X[:0], "y_test": Y[:0]}, DataError, r"shape \(0, 3, 4, 4\): give at"),
    "other shape": ({"x_test": X[:8, :1]}, DataError, r"\(3, 4, 4\) .* in x_train and \(1, 4, 4\)"),
    "fewer labels": (
        {"y_test": Y[:7]},
        DataError,
        "x_test .* has 8 images but y_test has 7 labels",
    ),
    "no labels": ({"y_test": None}, DataError, "y_test of data set 'noise' is missing"),
    "labels of floats": ({"y_train": Y.float()}, DataError, "y_train .* has type float32: labels"),
    "one-hot": ({"y_train": torch.eye(4).long()[Y]}, DataError, r"y_train .* has shape \(40, 4\)"),
    "negative": ({"y_test": Y[:8] - 1}, DataError, "y_test .* has the label -1: labels start at 0"),
    "too high": ({"y_test": Y[:8] + 1}, DataError, "has the label 4: labels of 4 .* from 0 to 3"),
    "few classes": ({"num_classes": 3}, DataError, "y_train .* has the label 3: labels of 3"),
    "one class": ({"num_classes": 1}, DataError, "data set 'noise' has only one class"),
    "no classes": ({"x_train": None, "y_train": None}, UsageError, "give num_classes"),
    "no test part": ({"x_test": None, "y_test": None}, UsageError, "give x_test and y_test"),
    "a path": ({"name": "my/noise"}, UsageError, "the data set name is 'my/noise': give letters"),
    "built in": ({"name": "CIFAR10"}, UsageError, "'CIFAR10' is the name of a built-in data set"),
    "mean": ({"mean": [0.5]}, UsageError, r"mean of data set 'noise' is \(0\.5,\): give 3 numbers"),
    "std": ({"std": [0.5, 0.5, 0]}, UsageError, "give 3 positive numbers, one per channel"),
    "negative in training": (
        {"y_train": Y - 4},
        DataError,
        "y_train .* has the label -4: labe",
    ),
    "no number": ({"mean": 0.5}, UsageError, "mean of data set 'noise' is 0.5: give 3 numbers"),
    "texts": ({"std": ["a", "b", "c"]}, UsageError, "give 3 positive numbers, one per channel"),
    "no name": ({"name": 3}, UsageError, "the data set name is 3: give letters"),
    "a text": ({"num_classes": "4"}, UsageError, "num_classes .* is '4': give an integer"),
    "zero classes": ({"num_classes": 0}, DataError, "data set 'noise' has 0 classes: a classifier"),
    "a set": ({"x_train": {1, 2}}, DataError, "x_train of data set 'noise' is a set: give a torch"),
    "meta": ({"x_train": X.to("meta")}, DataError, "x_train .* is on the meta device"),
    "infinite": ({"mean": [0.5, 0.5, float("inf")]}, UsageError, "give 3 numbers"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_sentence(
    changes: dict[str, Any], error: type[AdrbenchError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make(**changes)
    assert_one_sentence(str(caught.value), message[:0])


def test_the_class_is_public() -> None:
    assert adrbench.Dataset is Dataset
