"""Every kind of data set is read correctly, and a broken one is rejected in one sentence."""

import hashlib
import pickle
import shutil
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adrbench.data import (
    DATASETS,
    Images,
    dataset_name,
    load_dataset,
    load_examples,
    load_split,
)
from adrbench.data.builtin import read_cifar
from adrbench.data.hold_out import hold_out
from adrbench.data.loading import measure_channels
from adrbench.data.tiny_imagenet import read_tiny_imagenet
from adrbench.errors import DataError, UsageError

Array = npt.NDArray[Any]
NOWHERE = Path("nowhere")


def assert_one_sentence(message: str, *names: str) -> None:
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert ". " not in message
    for name in names:
        assert name in message


def write_image(
    file: Path, level: int | tuple[int, int, int], side: int = 4, **kwargs: Any
) -> None:
    """Write a square image of one color or gray level."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(level, int) else "RGB"
    Image.new(mode, (side, side), level).save(file, **kwargs)


# The parts of a data set


def images_of_labels(labels: list[int]) -> Images:
    """Return images whose pixels are their position."""
    positions = torch.arange(len(labels)) % 256
    return Images(positions.to(torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))


@given(data=st.data())
def test_the_hold_out_split_is_stratified_and_complete(data: st.DataObject) -> None:
    """A class with k of n images contributes k * size / n, rounded up or down."""
    labels = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=60))
    size = data.draw(st.integers(0, len(labels) - 1))
    train, val = hold_out(images_of_labels(labels), size, data.draw(st.integers(0, 9)))
    assert len(val) == size
    positions = [part.pixels.flatten().tolist() for part in (train, val)]
    assert sorted(positions[0] + positions[1]) == list(range(len(labels)))
    assert positions == [sorted(part) for part in positions]
    for part, where in zip((train, val), positions, strict=True):
        assert part.labels.tolist() == [labels[position] for position in where]
    for label in set(labels):
        share = labels.count(label) * size / len(labels)
        assert abs(int((val.labels == label).sum()) - share) < 1


def test_the_validation_part_depends_only_on_the_seed() -> None:
    """The indices must never change: runs would not be comparable with earlier ones."""
    images = images_of_labels([0, 1] * 20)
    chosen = [hold_out(images, 4, seed)[1].pixels.flatten().tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == [11, 22, 34, 35]
    assert chosen[2] != chosen[0]


@pytest.mark.parametrize(("count", "size"), [(9, 0), (10, 1), (1437, 143), (20_000, 1000)])
def test_by_default_1000_images_or_a_tenth_are_held_out(count: int, size: int) -> None:
    train, val = hold_out(images_of_labels([0, 1] * (count // 2) + [0] * (count % 2)), None, 0)
    assert (len(train), len(val)) == (count - size, size)


@pytest.mark.parametrize("size", [-1, 1437, 5000])
def test_an_invalid_validation_size_is_rejected(size: int) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset("digits", data_dir=NOWHERE, val_size=size)
    assert_one_sentence(str(caught.value), f"size is {size}", "from 0 to 1436")


def test_the_sha256_depends_on_pixels_labels_shape_and_order() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    labels = torch.tensor([0, 1])
    base = Images(pixels, labels)
    others = [
        Images(pixels + 1, labels),
        Images(pixels, labels + 1),
        Images(pixels.view(2, 2, 3, 2), labels),
        base.take(torch.tensor([1, 0])),
        base.first(1),
    ]
    assert len({images.sha256() for images in (base, *others)}) == 6
    strided = Images(pixels.to(memory_format=torch.channels_last), labels)
    assert strided.sha256() == base.sha256()


@pytest.mark.parametrize("n", [0, -1, 361])
def test_more_images_than_there_are_is_an_error(n: int) -> None:
    with pytest.raises(UsageError) as caught:
        load_examples("digits", n=n)
    assert_one_sentence(str(caught.value), f"n is {n}", "360")


# Names


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
        ("qqq", "an .npz file or an image folder"),
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


# digits


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


def test_examples_are_the_first_of_the_split() -> None:
    x, y = load_examples("digits", n=5)
    images, _ = load_split("digits", "test", data_dir=NOWHERE)
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), images.pixels[:5])
    assert torch.equal(y, images.labels[:5])
    assert len(load_examples("digits", split="train")[1]) == 1437


@given(levels=st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_channel_statistics_equal_numpys(levels: list[int]) -> None:
    first = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    mean, std = measure_channels(torch.cat([first, torch.full_like(first, 51)], dim=1))
    fractions = np.array(levels) / 255
    expected = 1.0 if len(set(levels)) == 1 else fractions.std()
    assert mean == pytest.approx((fractions.mean(), 0.2))
    assert std == pytest.approx((expected, 1.0))


# CIFAR: synthetic files in torchvision's layout, and a failing download


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


# TinyImageNet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Write three classes, listed unsorted: two training images each, four validation images."""
    root = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(("n03", "n01", "n02")):
        for i in range(2):
            file = root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            write_image(file, 40 * number + 10 * i)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("not an image")
    (root / "wnids.txt").write_text("n03\nn01\nn02\n")
    lines = [
        "val_0.JPEG\tn02\t0\t1\t2\t3",
        "val_1.JPEG\tn03",
        "val_10.JPEG\tn01",
        "val_2.JPEG\tn02",
    ]
    (root / "val").mkdir()
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for i in (0, 1, 2, 10):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", (20 * i, 20 * i, 20 * i))
    return tmp_path


def test_tiny_imagenet_labels_come_from_wnids_and_annotations(tiny: Path) -> None:
    """The sorted classes are n01, n02, n03; n01 was written second, with levels 40 and 50."""
    train = read_tiny_imagenet(tiny, "train")
    assert train is not None
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.pixels.shape == (6, 3, 4, 4)
    assert train.pixels.flatten(1).float().mean(1).tolist() == [40, 50, 80, 90, 0, 10]
    test = read_tiny_imagenet(tiny, "test")
    assert test is not None
    assert test.labels.tolist() == [1, 2, 0, 1]
    assert test.pixels.flatten(1).float().mean(1).tolist() == [0, 20, 200, 40]


def break_annotations(root: Path) -> None:
    file = root / "val" / "val_annotations.txt"
    file.write_text(file.read_text() + "val_3.JPEG\tn99\n")


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (shutil.rmtree, ["tiny-imagenet-200.zip", "wnids.txt"]),
        (lambda root: (root / "wnids.txt").unlink(), ["wnids.txt", ".zip"]),
        (lambda root: shutil.rmtree(root / "train" / "n01"), ["n01", ".zip"]),
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), ["val_annotations.txt"]),
        (lambda root: (root / "val" / "val_annotations.txt").write_text(""), ["no test images"]),
        (lambda root: (root / "val" / "images" / "val_10.JPEG").unlink(), ["val_10.JPEG"]),
        (break_annotations, ["line 5", "val_annotations.txt", "'n99'", "wnids.txt"]),
        (lambda root: None, ["4 images instead of 10000"]),
    ],
)
def test_a_damaged_tiny_imagenet_is_rejected(
    tiny: Path, damage: Callable[[Path], object], names: list[str]
) -> None:
    damage(tiny / "tiny-imagenet-200")
    with pytest.raises(DataError) as caught:
        load_dataset("tiny-imagenet", data_dir=tiny)
    assert_one_sentence(str(caught.value), *names)


@pytest.mark.data
@pytest.mark.slow
def test_the_official_tiny_imagenet_is_read(real_images: Path, tmp_path: Path) -> None:
    """The labels were looked up by hand: a class's rank in the sorted wnids.txt.

    val_0 is n03444034 (go-kart), val_1 n04067472 (reel), val_2 n04070727 (refrigerator), val_5000
    n02074367 (dugong) and val_9999 n02699494 (altar).
    """
    with tarfile.open(real_images / "tiny-imagenet-200-80perclass.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    dataset = load_dataset("tiny-imagenet", data_dir=tmp_path, val_size=400)
    assert [int(dataset.test.labels[i]) for i in (0, 1, 2, 5000, 9999)] == [107, 139, 140, 23, 61]
    assert dataset.test.labels.bincount().tolist() == [50] * 200
    assert dataset.train.labels.bincount().tolist() == [78] * 200
    assert dataset.val.labels.bincount().tolist() == [2] * 200
    assert dataset.test.pixels.shape == (10_000, 3, 64, 64)
    mean, _ = measure_channels(dataset.train.pixels)
    assert mean == pytest.approx(dataset.mean, abs=0.01)


# .npz files


def good_arrays() -> dict[str, Array]:
    """Return six training images, whose first pixel is their index, and four test images, 5x4."""
    x_train = np.zeros((6, 5, 4, 3), np.uint8)
    x_train[:, 0, 0, 0] = np.arange(6)
    x_train[:, 1, 2] = (10, 20, 30)
    x_test = np.ones((4, 5, 4, 3), np.uint8)
    return {
        "x_train": x_train,
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": x_test,
        "y_test": np.array([2, 1, 0, 0]),
    }


def save(path: Path, arrays: dict[str, Array]) -> str:
    np.savez(path, allow_pickle=True, **arrays)
    return str(path)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_an_npz_is_read(tmp_path: Path, dtype: type) -> None:
    arrays = good_arrays()
    arrays |= {key: arrays[key].astype(dtype) for key in ("y_train", "y_test")}
    dataset = load_dataset(save(tmp_path / "own.npz", arrays), data_dir=NOWHERE, val_size=2)
    assert (dataset.name, dataset.num_classes, dataset.published) == ("own", 3, False)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4, 2, 4)
    assert dataset.test.labels.tolist() == [2, 1, 0, 0]
    assert dataset.train.pixels.shape == (4, 3, 5, 4)
    assert dataset.train.pixels[0, :, 1, 2].tolist() == [10, 20, 30]
    for part in (dataset.train, dataset.val):
        assert torch.equal(part.pixels[:, 0, 0, 0] % 3, part.labels)


def test_the_mean_does_not_depend_on_the_hold_out_split(tmp_path: Path) -> None:
    path = save(tmp_path / "own.npz", good_arrays())
    expected = good_arrays()["x_train"].reshape(-1, 3) / 255
    for val_size in (0, 3):
        dataset = load_dataset(path, data_dir=NOWHERE, val_size=val_size)
        assert dataset.mean == pytest.approx(tuple(expected.mean(0)))
        assert dataset.std == pytest.approx(tuple(expected.std(0)))


def test_gray_images_may_lack_the_channel_axis(tmp_path: Path) -> None:
    arrays = good_arrays()
    arrays |= {key: arrays[key][..., 0] for key in ("x_train", "x_test")}
    dataset = load_dataset(save(tmp_path / "own.npz", arrays), data_dir=NOWHERE)
    assert dataset.channels == 1
    assert dataset.train.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def with_val() -> dict[str, Array]:
    arrays = good_arrays()
    return arrays | {"x_val": arrays["x_test"][:2] + 1, "y_val": arrays["y_test"][:2]}


def test_a_data_sets_own_validation_part_is_used_in_full(tmp_path: Path) -> None:
    path = save(tmp_path / "own.npz", with_val())
    dataset = load_dataset(path, data_dir=NOWHERE)
    assert (len(dataset.train), len(dataset.val)) == (6, 2)
    assert set(dataset.val.pixels.flatten().tolist()) == {2}
    assert len(load_dataset(path, data_dir=NOWHERE, val_size=0).val) == 0
    with pytest.raises(UsageError) as caught:
        load_dataset(path, data_dir=NOWHERE, val_size=1)
    assert_one_sentence(str(caught.value), "size is 1", "2 validation images")


def test_the_test_part_of_an_npz_is_read_without_training_images(tmp_path: Path) -> None:
    arrays = good_arrays()
    del arrays["x_train"]
    images, source = load_split(save(tmp_path / "own.npz", arrays), "test", data_dir=NOWHERE)
    assert (len(images), source.num_classes, source.mean) == (4, 3, None)


def changed(**changes: Array | None) -> dict[str, Array]:
    arrays: dict[str, Array | None] = {**with_val(), **changes}
    return {key: array for key, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        (changed(x_train=None), ["no x_train", "y_train", "x_test"]),
        (changed(y_test=None), ["no y_test", "must hold"]),
        (changed(y_val=None), ["no y_val"]),
        (changed(x_val=None), ["no x_val"]),
        ({}, ["no y_train but nothing"]),
        (changed(x_train=np.zeros((6, 5, 4, 3), np.float32)), ["x_train", "float32", "uint8"]),
        (changed(x_test=np.zeros((4, 5, 4, 3), np.int64)), ["x_test", "int64", "uint8"]),
        (changed(x_test=np.zeros((4, 60), np.uint8)), ["x_test", "(4, 60)", "channels"]),
        (changed(x_test=np.zeros((4, 0, 4, 3), np.uint8)), ["x_test", "(4, 0, 4, 3)"]),
        (changed(y_train=np.zeros(6)), ["y_train", "float64", "integers"]),
        (changed(y_train=np.eye(6, 3, dtype=np.int64)), ["y_train", "(6, 3)", "(N,)"]),
        (changed(y_train=np.array([0, 1, 2, 0, 1, -1])), ["y_train", "label -1", "start at 0"]),
        (changed(y_test=np.array([0, 0, -7, 0])), ["y_test", "label -7"]),
        (changed(y_test=np.array([0, 3, 0, 0])), ["y_test", "label 3", "0 to 2"]),
        (changed(y_val=np.array([9, 0])), ["y_val", "label 9", "0 to 2"]),
        (changed(y_train=np.zeros(6, np.int64)), ["y_train", "one class", "two"]),
        (changed(y_train=np.zeros(0, np.int64)), ["y_train", "empty"]),
        (
            changed(x_test=np.zeros((0, 5, 4, 3), np.uint8), y_test=np.zeros(0, np.int64)),
            ["y_test", "empty"],
        ),
        (changed(y_test=np.array([0, 1, 2])), ["x_test", "4 images", "3 labels"]),
        (changed(x_test=np.zeros((4, 5, 4, 1), np.uint8)), ["(1, 5, 4)", "(3, 5, 4)", "test"]),
        (changed(x_val=np.zeros((2, 5, 5, 3), np.uint8)), ["(3, 5, 5)", "(3, 5, 4)", "validation"]),
        (changed(x_test=np.array([1, "a", None, 2], object)), ["x_test", "not a plain array"]),
        (changed(y_train=np.array([0, "a"], object)), ["y_train", "not a plain array"]),
    ],
)
def test_an_invalid_npz_is_rejected(
    tmp_path: Path, arrays: dict[str, Array], names: list[str]
) -> None:
    path = save(tmp_path / "own.npz", arrays)
    with pytest.raises(DataError) as caught:
        load_dataset(path, data_dir=NOWHERE)
    assert_one_sentence(str(caught.value), path, *names)


def truncated(length: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        save(path, good_arrays())
        path.write_bytes(path.read_bytes()[:length])

    return write


def write_single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_damaged_member(path: Path) -> None:
    """Change one byte of the labels, so that the archive's checksum is wrong."""
    save(path, good_arrays())
    stored = path.read_bytes()
    y_train = good_arrays()["y_train"].tobytes()
    path.write_bytes(stored.replace(y_train, y_train[:-1] + b"\1"))


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (lambda path: None, ["cannot open", "No such file"]),
        (lambda path: path.write_bytes(b""), ["not an .npz file"]),
        (lambda path: path.write_text("hello"), ["not an .npz file"]),
        (lambda path: path.write_bytes(pickle.dumps({"x": 1})), ["not an .npz file"]),
        (truncated(100), ["not an .npz file"]),
        (write_single_array, ["single array", "savez"]),
        (write_damaged_member, ["y_train", "broken"]),
    ],
)
def test_a_file_that_is_not_an_npz_is_rejected(
    tmp_path: Path, write: Callable[[Path], object], names: list[str]
) -> None:
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(DataError) as caught:
        load_dataset(str(path), data_dir=NOWHERE)
    assert_one_sentence(str(caught.value), str(path), *names)


@pytest.mark.data
@pytest.mark.parametrize(("name", "counts"), [("cifar10", (5170, 1017)), ("cifar100", (486, 916))])
def test_real_images_in_an_npz_are_read(
    real_images: Path, name: str, counts: tuple[int, int]
) -> None:
    dataset = load_dataset(str(real_images / f"{name}-first.npz"), data_dir=NOWHERE)
    published = DATASETS[name]
    assert (len(dataset.train) + len(dataset.val), len(dataset.test)) == counts
    assert (dataset.name, dataset.num_classes) == (f"{name}-first", published.num_classes)
    assert not dataset.published
    assert dataset.mean == pytest.approx(published.mean, abs=0.02)
    assert dataset.std == pytest.approx(published.std, abs=0.02)


# Image folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write train/ and test/ with the classes ant (levels 10, 11) and bee (20), and other files."""
    root = tmp_path / "insects"
    write_image(root / "train" / "bee" / "a.png", 20)
    write_image(root / "train" / "ant" / "b.PNG", 11)
    write_image(root / "train" / "ant" / "a.bmp", 10)
    write_image(root / "test" / "ant" / "1.png", (1, 2, 3))
    write_image(root / "test" / "ant" / "2.png", 12)
    write_image(root / "test" / "bee" / "deeper" / "3.webp", (9, 9, 9), lossless=True)
    (root / "test" / "notes.txt").write_text("not an image")
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / "ant" / "._a.png").write_bytes(b"left by an unpacker")
    (root / "train" / ".cache").mkdir()
    return root


def test_the_images_of_a_folder_cycle_through_the_classes(folder: Path) -> None:
    dataset = load_dataset(str(folder), data_dir=NOWHERE, val_size=0)
    assert (dataset.name, dataset.num_classes, dataset.published) == ("insects", 2, False)
    assert dataset.train.labels.tolist() == [0, 1, 0]
    assert dataset.train.pixels[:, 2, 3, 0].tolist() == [10, 20, 11]
    assert dataset.test.labels.tolist() == [0, 1, 0]
    assert dataset.test.pixels[:, :, 0, 3].tolist() == [[1, 2, 3], [9, 9, 9], [12, 12, 12]]
    assert dataset.mean == pytest.approx((41 / 3 / 255,) * 3)


def test_val_is_the_test_part_without_test(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    dataset = load_dataset(str(folder), data_dir=NOWHERE, val_size=1)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (2, 1, 3)


def test_val_is_the_validation_part_with_test(folder: Path) -> None:
    write_image(folder / "val" / "bee" / "v.png", 77)
    dataset = load_dataset(str(folder), data_dir=NOWHERE)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (3, 1, 3)
    assert set(dataset.val.pixels.flatten().tolist()) == {77}
    assert dataset.val.labels.tolist() == [1]


def test_the_test_part_of_a_folder_is_read_without_training_images(folder: Path) -> None:
    (folder / "train" / "bee" / "a.png").write_text("broken")
    images, source = load_split(str(folder), "test", data_dir=NOWHERE)
    assert (len(images), source.num_classes) == (3, 2)


def write_truncated(file: Path) -> None:
    write_image(file, (1, 2, 3), side=64)
    file.write_bytes(file.read_bytes()[:100])


def enlarge(part: Path) -> None:
    for file in part.rglob("*.[pw]*"):
        write_image(file, 1, side=5)


def delete_files(part: Path) -> None:
    for file in part.rglob("*.*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda root: shutil.rmtree(root / "train"), ["train", "test/"]),
        (lambda root: shutil.rmtree(root / "test"), ["neither test/ nor val/"]),
        (lambda root: shutil.rmtree(root / "train" / "bee"), ["train", "one class"]),
        (lambda root: delete_files(root / "train" / "bee"), ["train/bee", "no images"]),
        (lambda root: delete_files(root / "test"), ["test", "no images"]),
        (lambda root: (root / "val").mkdir(), ["val", "no class folders"]),
        (lambda root: write_image(root / "test" / "wasp" / "x.png", 1), ["test", "'wasp'"]),
        (
            lambda root: write_image(root / "train" / "bee" / "b.png", 1, side=5),
            ["bee/b.png is 5x5", "ant/a.bmp is 4x4", "same size"],
        ),
        (
            lambda root: enlarge(root / "test"),
            ["test", "(3, 5, 5)", "(3, 4, 4)"],
        ),
        (lambda root: (root / "test" / "ant" / "1.png").write_text("?"), ["read", "ant/1.png"]),
        (lambda root: write_truncated(root / "test" / "bee" / "z.jpg"), ["read", "bee/z.jpg"]),
        (lambda root: write_truncated(root / "test" / "bee" / "z.png"), ["read", "bee/z.png"]),
        (
            lambda root: Image.new("I;16", (4, 4)).save(root / "train" / "ant" / "c.png"),
            ["ant/c.png", "I;16", "8 bits"],
        ),
    ],
)
def test_an_invalid_folder_is_rejected(
    folder: Path, damage: Callable[[Path], object], names: list[str]
) -> None:
    damage(folder)
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), data_dir=NOWHERE)
    assert_one_sentence(str(caught.value), *names)
