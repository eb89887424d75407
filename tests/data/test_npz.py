""".npz files are read correctly, and invalid ones are rejected in one sentence."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from adrbench.data import DATASETS, load_dataset, load_split
from adrbench.errors import DataError, UsageError
from messages import assert_one_sentence

Array = npt.NDArray[Any]
NOWHERE = Path("nowhere")


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
        (changed(y_test=None), ["no y_test", "must contain"]),
        (changed(y_val=None), ["no y_val"]),
        (changed(x_val=None), ["no x_val"]),
        ({"x": np.zeros(3), "y": np.zeros(3)}, ["no y_test but x, y: it must contain x_test and"]),
        (changed(y_test=np.array([0, 10**7, 0, 0])), ["y_test", "number the classes 0, 1, 2"]),
        ({}, ["no y_test but nothing"]),
        (changed(x_train=np.zeros((6, 5, 4, 3), np.float32)), ["x_train", "float32", "uint8"]),
        (changed(x_test=np.full((4, 5, 4, 3), np.nan)), ["x_test", "float64", "by 255 first"]),
        (changed(x_test=np.zeros((4, 5, 4, 3), np.int64)), ["x_test", "int64", "0 to 255."]),
        (changed(x_test=np.zeros((4, 3, 8, 8), np.uint8)), ["8 channels", "put the channels last"]),
        (changed(y_test=np.array([[0], [1], [0], [1]])), ["(4, 1)", "one class index per image"]),
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
        (lambda path: path.write_bytes(b""), ["cannot open", "it is empty"]),
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
