"""Names of classes: from a data set's own files or from its user, any text, one per class."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from adrbench.data import DATASETS, Dataset, load_dataset, load_split
from adrbench.data.builtin import read_cifar100_names
from adrbench.data.tiny_imagenet import read_tiny_imagenet_names
from adrbench.errors import DataError
from image_files import write_image
from messages import assert_one_sentence

HOSTILE = ('<script>alert("1")</script>', "\x1b[31m\n", "x" * 10_000)
SHOWN = (HOSTILE[0], r"\x1b[31m\n", HOSTILE[2])
X, Y = np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 3


def make(**more: Any) -> Dataset:
    return Dataset.from_arrays(name="own", x_train=X, y_train=Y, x_test=X, y_test=Y, **more)


def save(path: Path, **more: Any) -> str:
    arrays: dict[str, Any] = {"x_test": X.transpose(0, 2, 3, 1), "y_test": Y} | more
    np.savez(path, **arrays)
    return str(path)


def with_training() -> dict[str, Any]:
    return {"x_train": X.transpose(0, 2, 3, 1), "y_train": Y}


def test_built_in_data_sets_have_their_names() -> None:
    assert DATASETS["digits"].class_names == tuple("0123456789")
    assert DATASETS["cifar10"].class_names[:3] == ("airplane", "automobile", "bird")
    for name in ("digits", "cifar10"):
        assert len(DATASETS[name].class_names) == DATASETS[name].num_classes
    assert load_dataset("digits", data_dir=Path()).class_names == tuple("0123456789")


@pytest.fixture
def write_meta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Return what writes CIFAR-100's `meta`, which is then taken for the official one."""

    def write(content: object) -> None:
        meta = tmp_path / "cifar-100-python" / "meta"
        meta.parent.mkdir(exist_ok=True)
        meta.write_bytes(pickle.dumps(content))
        md5 = hashlib.md5(meta.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5})

    return write


def test_names_of_cifar100_are_those_of_its_own_file(
    tmp_path: Path, write_meta: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_cifar100_names(tmp_path) == ()
    names = [f"class {number}" for number in range(100)]
    write_meta({"fine_label_names": names, "coarse_label_names": ["a"]})
    assert DATASETS["cifar100"].with_class_names(tmp_path).class_names == tuple(names)
    for damaged in (names[:99], "class", [1] * 100, None):
        write_meta({"fine_label_names": damaged})
        assert read_cifar100_names(tmp_path) == ()
    write_meta({"fine_label_names": names})
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": "0" * 32})
    assert read_cifar100_names(tmp_path) == (), "a file that is not the official one"


def test_nothing_in_the_file_of_cifar100_is_executed(
    tmp_path: Path, write_meta: Callable[[object], None]
) -> None:
    class Program:
        """A pickle that makes a directory when it is loaded."""

        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (tmp_path / "made",)

    write_meta({"fine_label_names": Program()})
    assert read_cifar100_names(tmp_path) == ()
    assert not (tmp_path / "made").exists()


def test_names_of_tiny_imagenet_are_the_first_of_each_class(tmp_path: Path) -> None:
    assert read_tiny_imagenet_names(tmp_path) == ()
    root = tmp_path / "tiny-imagenet-200"
    root.mkdir()
    (root / "wnids.txt").write_text("n03\nn01\nn02\n")
    assert read_tiny_imagenet_names(tmp_path) == ()
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn03\tbullfrog\nn9\tother\n")
    assert read_tiny_imagenet_names(tmp_path) == ("goldfish", "n02", "bullfrog")


def test_names_of_a_folder_are_those_of_its_folders(tmp_path: Path) -> None:
    for name in ("b & c", "<a>"):
        for part in ("train", "test"):
            write_image(tmp_path / "own" / part / name / "0.png", 50)
    _, source = load_split(str(tmp_path / "own"), "test", data_dir=tmp_path)
    assert source.class_names == ("<a>", "b & c")


@pytest.mark.parametrize("more", [{}, with_training()], ids=["test only", "with training"])
def test_names_in_an_npz_may_be_any_text(more: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "own.npz", class_names=np.array(HOSTILE), **more)
    _, source = load_split(path, "test", data_dir=tmp_path)
    assert source.class_names == SHOWN
    assert source.classes_are_known
    _, nameless = load_split(save(tmp_path / "own.npz", **more), "test", data_dir=tmp_path)
    assert nameless.class_names == ()


def test_names_say_how_many_classes_there_are_without_training_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "own.npz", class_names=np.array(list("abcde")))
    assert load_split(path, "test", data_dir=tmp_path)[1].num_classes == 5


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (np.array(["a", "b"]), ("has 2 names, but there are 3 classes",)),
        (np.array([1, 2, 3]), ("class_names in", "must be an array of strings")),
        (np.array([["a", "b", "c"]]), ("class_names in", "shape (1, 3)")),
        (np.array(["a", None, 1], dtype=object), ("class_names in", "an array of strings")),
    ],
)
def test_other_names_in_an_npz_are_refused(
    names: Any, parts: tuple[str, ...], tmp_path: Path
) -> None:
    path = save(tmp_path / "own.npz", class_names=names)
    with pytest.raises(DataError) as raised:
        load_split(path, "test", data_dir=tmp_path)
    assert_one_sentence(str(raised.value), *parts)


@pytest.mark.parametrize("names", [HOSTILE, list(HOSTILE), np.array(HOSTILE)])
def test_names_of_arrays_may_be_any_text(names: Any, tmp_path: Path) -> None:
    dataset = make(class_names=names)
    assert dataset.class_names == SHOWN
    assert load_split(dataset, "test", data_dir=tmp_path)[1].class_names == SHOWN
    assert load_dataset(dataset, data_dir=tmp_path).class_names == SHOWN
    assert make().class_names == ()


def test_what_cannot_be_encoded_is_escaped() -> None:
    assert make(class_names=["a", "\udcff", "ü"]).class_names == ("a", r"\udcff", "ü")


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", 3], "abc", 3, np.array(3), {"a": 1}])
def test_other_names_of_arrays_are_refused(names: Any) -> None:
    with pytest.raises(DataError) as raised:
        make(class_names=names)
    assert_one_sentence(str(raised.value), "class_names of data set 'own'")
