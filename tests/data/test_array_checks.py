"""Arrays and tensors in any form that holds numbers, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from adrbench.data.array_checks import as_labels, as_tensor, check_channels_first
from adrbench.errors import DataError
from messages import assert_one_sentence

X = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1])


def frozen(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    array.flags.writeable = False
    return array


FORMS: dict[str, tuple[Any, torch.Tensor]] = {
    "mirrored": (X.numpy()[:, :, ::-1], X.flip(2)),
    "read-only": (frozen(X.numpy().copy()), X),
    "of another byte order": (X.numpy().astype(">f4"), X),
    "of half precision": (X.numpy().astype(np.float16), X.half()),
    "nested lists": (X.double().tolist(), X.double()),
    "a list of arrays": ([*X.numpy()], X),
    "a tuple of tensors": (tuple(X), X),
    "sparse": (X.to_sparse(), X),
    "of a parameter": (torch.nn.Parameter(X), X),
    "permuted": (X.permute(0, 3, 1, 2), X.permute(0, 3, 1, 2)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_numbers_is_a_dense_tensor(form: str) -> None:
    values, expected = FORMS[form]
    tensor = as_tensor(values, "x")
    assert torch.equal(tensor, expected)
    assert tensor.dtype == expected.dtype
    assert (tensor.is_contiguous(), tensor.requires_grad) == (True, False)


def test_tensors_of_inference_mode_can_be_differentiated_after_a_copy() -> None:
    with torch.inference_mode():
        made = X * 1
    assert torch.equal(as_tensor(made, "x").clone(), X)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "x is a NoneType: give a torch tensor or a NumPy array of numbers."),
        ("pixels", "x is a str: give"),
        ([[1, 2], [3]], "x is a list: give"),
        (np.array([None, 1]), "x has type object: give"),
        (np.array(["1"]), "x has type <U1: give"),
        (np.zeros(2, np.longdouble), "x has type float128: give|x has type longdouble: give"),
        ([X, X[:1]], "x is a list of tensors of several shapes or types: give one tensor."),
        ([X, 3], "x is a list of tensors of several shapes or types: give one tensor."),
        (X.to("meta"), "x is on the meta device, without values: give a tensor of numbers."),
        (
            torch.nested.nested_tensor([X[0, 0], X[0, 0, :1]], layout=torch.jagged),
            "x is a nested tensor: give a tensor of numbers.",
        ),
    ],
)
def test_what_holds_no_numbers(values: object, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        as_tensor(values, "x")
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64"])
def test_labels_of_every_type_of_integer(dtype: str) -> None:
    for labels in (Y.numpy().astype(dtype), Y.to(getattr(torch, dtype))):
        found = as_labels(labels, "y")
        assert (found.dtype, found.tolist()) == (torch.int64, [0, 2, 1])
    assert as_labels([0, 2, 1], "y").tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Y.bool(), "y has type bool: labels must be integers."),
        (Y.to(torch.complex64), "y has type complex64: labels must be integers."),
        (Y[:0], "y is empty: a data set needs at least one image"),
        (Y - 1, "y has the label -1: labels start at 0."),
        (Y * 500_000, "y has the label 1000000: number the classes 0, 1, 2 and so on."),
    ],
)
def test_labels_that_are_no_class_indices(labels: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        as_labels(labels, "y")


def test_channels_are_not_mistaken_for_the_width() -> None:
    check_channels_first((1, 8, 5, 5), "x")
    check_channels_first((1, 3, 8, 3), "x")
    with pytest.raises(DataError, match="channels last"):
        check_channels_first((1, 8, 8, 3), "x")
