"""Digits, and CIFAR from synthetic files in torchvision's layout."""

import hashlib
import pickle
import urllib.error
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision

from adrbench.data import load_dataset, load_split
from adrbench.data.builtin import read_cifar
from adrbench.data.loading import measure_channels
from adrbench.errors import DataError
from messages import assert_one_sentence

NOWHERE = Path("nowhere")


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    dataset = load_dataset("digits", data_dir=NOWHERE, val_size=0)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (1437, 0, 360)
    assert not dataset.published
    assert dataset.channels == 1
    pixels = torch.cat([dataset.train.pixels, dataset.test.pixels])
    labels = torch.cat([dataset.train.labels, dataset.test.labels])
    assert labels.tolist() == digits.target.tolist()
    levels = pixels.squeeze(1).numpy() * (16 / 255)
    assert np.abs(levels - digits.images).max() < 0.5 * 16 / 255 + 1e-9
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_mean_and_std_of_digits_are_those_of_its_training_part() -> None:
    train, source = load_split("digits", "train", data_dir=NOWHERE)
    assert source.mean is not None
    assert source.std is not None
    mean, std = measure_channels(train.pixels)
    assert source.mean == pytest.approx(mean, abs=5e-5)
    assert source.std == pytest.approx(std, abs=5e-5)


@pytest.fixture
def fake_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two CIFAR-10 batches of two images; every pixel is 100 * channel + row."""
    cifar = torchvision.datasets.CIFAR10
    rows = np.broadcast_to(np.arange(32).reshape(1, 32, 1), (3, 32, 32))
    image = (rows + 100 * np.arange(3).reshape(3, 1, 1)).astype(np.uint8)
    files = {
        "data_batch_1": {"data": np.stack([image, image]).reshape(2, -1), "labels": [3, 9]},
        "test_batch": {"data": np.stack([image, 255 - image]).reshape(2, -1), "labels": [7, 0]},
        "batches.meta": {"label_names": list("abcdefghij")},
    }
    md5 = {}
    (tmp_path / cifar.base_folder).mkdir()
    for name, content in files.items():
        pickled = pickle.dumps(content)
        (tmp_path / cifar.base_folder / name).write_bytes(pickled)
        md5[name] = hashlib.md5(pickled, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": md5["batches.meta"]})
    return tmp_path


@pytest.mark.parametrize(("part", "labels"), [("train", [3, 9]), ("test", [7, 0])])
def test_cifar_is_read_from_torchvisions_files(
    fake_cifar: Path, part: Literal["train", "test"], labels: list[int]
) -> None:
    images = read_cifar("CIFAR10", fake_cifar, part)
    assert images is not None
    assert images.labels.tolist() == labels
    assert images.pixels.shape == (2, 3, 32, 32)
    for channel, row, column in ((0, 0, 0), (1, 31, 2), (2, 5, 30)):
        assert images.pixels[0, channel, row, column] == 100 * channel + row


def test_a_test_part_of_another_size_than_the_published_one_is_rejected(fake_cifar: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_split("cifar10", "test", data_dir=fake_cifar)
    assert_one_sentence(str(caught.value), "cifar10", "2 images instead of 10000", str(fake_cifar))


@pytest.mark.parametrize(
    ("dataset", "archive"), [("cifar10", "cifar-10"), ("cifar100", "cifar-100")]
)
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (urllib.error.URLError(OSError(-2, "Name or service\nnot known")), "not known"),
        (RuntimeError("File not found or corrupted."), "corrupted"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_failed_download_names_the_file_and_its_location(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    archive: str,
    failure: Exception,
    reason: str,
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        print("Downloading")  # noqa: T201
        raise failure

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(DataError) as caught:
        load_dataset(dataset, data_dir=tmp_path)
    assert_one_sentence(
        str(caught.value), str(tmp_path), reason, f"{archive}-python.tar.gz from https://"
    )
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Downloading" in printed.err
