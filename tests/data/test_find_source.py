"""Data sets are found by name or path."""

from pathlib import Path

import pytest

from adrbench.data import dataset_name, load_dataset, load_split
from adrbench.errors import UsageError
from messages import assert_one_sentence

NOWHERE = Path("nowhere")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("cifar10", "cifar10"),
        ("/some/where/cifar10-first.npz", "cifar10-first"),
        ("somewhere/my photos/", "my-photos"),
        ("my data (1).NPZ", "my-data-1"),
        ("../übung.npz", "bung"),
        ("/...npz", "data"),
        ("/some/where/cifar10.npz", "cifar10-npz"),
        ("some/where/digits", "digits-folder"),
    ],
)
def test_data_set_names_are_short_and_safe_in_file_names(dataset: str, name: str) -> None:
    assert dataset_name(dataset) == name


@pytest.mark.parametrize(
    ("dataset", "hint"),
    [
        ("cifra10", "did you mean cifar10"),
        ("qqq", "an .npz file, an image folder, package.module:attribute"),
        ("", "digits"),
    ],
)
def test_unknown_names_are_rejected_with_a_hint(dataset: str, hint: str) -> None:
    for use in (dataset_name, lambda name: load_dataset(name, data_dir=NOWHERE)):
        with pytest.raises(UsageError) as caught:
            use(dataset)
        assert_one_sentence(str(caught.value), repr(dataset), hint)


def test_an_unknown_split_is_rejected() -> None:
    with pytest.raises(UsageError, match="unknown split 'tset': did you mean test"):
        load_split("digits", "tset", data_dir=NOWHERE)  # type: ignore[arg-type]
