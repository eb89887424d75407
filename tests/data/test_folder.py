"""Image folders are read correctly, and invalid ones are rejected in one sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from adrbench.data import load_dataset, load_split
from adrbench.errors import DataError
from image_files import write_image
from messages import assert_one_sentence

NOWHERE = Path("nowhere")


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
