"""Pipes, devices and huge or endless files among the files of data sets: one sentence at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adrbench.data import load_dataset
from adrbench.data.builtin import read_cifar, read_cifar100_names
from adrbench.data.tiny_imagenet import read_tiny_imagenet
from adrbench.errors import DataError
from messages import assert_one_sentence
from unreadable_files import UNREADABLE

#: Those at whose place only a file is expected.
NO_DIRECTORY = sorted(UNREADABLE.keys() - {"directory"})
ENDLESS = ("/proc/kmsg", "/proc/self/pagemap", "/proc/self/mem")


@pytest.mark.parametrize("kind", NO_DIRECTORY)
def test_an_npz_file(kind: str, tmp_path: Path) -> None:
    UNREADABLE[kind](tmp_path / "own.npz")
    with pytest.raises(DataError, match=r"cannot open .*own\.npz \(it (is not a|has)") as caught:
        load_dataset(str(tmp_path / "own.npz"), data_dir=tmp_path)
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize("kind", NO_DIRECTORY)
def test_an_image_in_a_folder(kind: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / part / name / "0.png")
    UNREADABLE[kind](tmp_path / "train" / "a" / "1.png")
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png \(it (is|has)") as caught:
        load_dataset(str(tmp_path), data_dir=tmp_path)
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"])
def test_a_file_of_cifar(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    UNREADABLE[kind](tmp_path / name)
    with pytest.raises(DataError, match=rf"cannot read .*{name} \(it (is|has)") as caught:
        read_cifar("CIFAR10", tmp_path, "train")
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize("target", ENDLESS)
def test_an_endless_file_of_cifar(target: str, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").symlink_to(target)
    with pytest.raises(DataError, match=r"cannot read .*test_batch \(it is empty\)"):
        read_cifar("CIFAR10", tmp_path, "train")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_the_class_names_of_cifar100(kind: str, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    UNREADABLE[kind](tmp_path / "cifar-100-python" / "meta")
    assert read_cifar100_names(tmp_path) == ()


@pytest.mark.parametrize("kind", UNREADABLE)
def test_the_classes_of_tiny_imagenet(kind: str, tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200").mkdir()
    UNREADABLE[kind](tmp_path / "tiny-imagenet-200" / "wnids.txt")
    with pytest.raises(DataError, match=r"cannot read .*wnids\.txt: unpack"):
        read_tiny_imagenet(tmp_path, "train")
