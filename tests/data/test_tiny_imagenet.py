"""TinyImageNet is read from its official files, and damaged files are rejected."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adrbench.data import load_dataset
from adrbench.data.loading import measure_channels
from adrbench.data.tiny_imagenet import read_tiny_imagenet
from adrbench.errors import DataError
from image_files import write_image
from messages import assert_one_sentence


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
