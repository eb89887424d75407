"""Altered official files of TinyImageNet and CIFAR are read or rejected, and never run."""

import pickle
from pathlib import Path

import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from adrbench.data import Images
from adrbench.data.builtin import read_cifar
from adrbench.data.tiny_imagenet import read_tiny_imagenet
from adrbench.errors import DataError
from fuzzing import fuzz
from image_files import image_bytes
from messages import assert_one_line
from payloads import Payload


@fuzz
@given(data=st.data())
def test_tiny_imagenet_with_altered_lists_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    words = st.sampled_from(
        ["n1", "n2", "\t", "\n", "val_0.JPEG", "..", "/", "\0", "x" * 300, "\xff"]
    )
    root = tmp_path_factory.getbasetemp() / "fuzzed" / "tiny-imagenet-200"
    for file in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "val/images/val_0.JPEG"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(image_bytes("JPEG"))
    for file in ("wnids.txt", "val/val_annotations.txt"):
        drawn = data.draw(st.lists(words, max_size=6).map("".join))
        (root / file).write_text(drawn, encoding="latin-1")
    for part in ("train", "test"):
        try:
            assert isinstance(read_tiny_imagenet(root.parent, part), Images)
        except DataError as error:
            assert_one_line(str(error))


def test_tiny_imagenet_with_too_many_classes_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200").mkdir()
    (tmp_path / "tiny-imagenet-200" / "wnids.txt").write_text(" ".join(map(str, range(201))))
    with pytest.raises(DataError, match="201 classes instead of 200"):
        read_tiny_imagenet(tmp_path, "train")


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_cifar_pickle_that_is_not_the_published_one_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every file in the folder is such a pickle, whichever is loaded first."""
    cifar = getattr(torchvision.datasets, name)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    ran = tmp_path / "ran"
    (tmp_path / cifar.base_folder).mkdir()
    for file, _ in (*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], "")):
        (tmp_path / cifar.base_folder / file).write_bytes(pickle.dumps(Payload(Path.touch, ran)))
    for part in ("train", "test"):
        with pytest.raises(DataError) as caught:
            read_cifar(name, tmp_path, part)
        assert_one_line(str(caught.value))
    assert not ran.exists()
