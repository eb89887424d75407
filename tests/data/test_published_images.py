"""Published images are recognized by their content, whatever file they came in."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adrbench.data import DATASETS, Images, load_dataset, load_split, published_images, to_float
from adrbench.data.published_images import (
    PUBLISHED,
    BinaryFiles,
    _to_levels,
    are_published_training_images,
    binary_sha1,
    published_name,
)
from adrbench.models.architectures import build_model
from runner import succeed
from tiny import make_images

NOWHERE = Path("nowhere")
NUM_TEST, NUM_PER_FILE = 12, 12


def test_the_layout_is_that_of_the_binary_version() -> None:
    """Two images of 1x2 pixels: the label, both reds, both greens, both blues, then the next."""
    pixels = torch.tensor([[[[1, 2]], [[3, 4]], [[5, 6]]], [[[7, 8]], [[9, 10]], [[11, 12]]]])
    images = Images(pixels.to(torch.uint8), torch.tensor([9, 200]))
    content = bytes([9, 1, 2, 3, 4, 5, 6, 200, 7, 8, 9, 10, 11, 12])
    assert binary_sha1(images) == hashlib.sha1(content).hexdigest()
    in_another_layout = images.pixels.to(memory_format=torch.channels_last)
    assert binary_sha1(Images(in_another_layout, images.labels)) == binary_sha1(images)


def test_the_table_describes_data_sets_of_the_package() -> None:
    for name, files in PUBLISHED.items():
        assert DATASETS[name].published
        assert files.images_per_file * len(files.test) == DATASETS[name].num_test
        for digest in (*files.train, *files.test):
            assert len(bytes.fromhex(digest)) == hashlib.sha1().digest_size


def color_images(n: int, seed: int) -> Images:
    """Return `n` images of 8x8 pixels with the labels 0 to 9."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(n) % 10)


TEST, TRAIN = color_images(NUM_TEST, 0), color_images(2 * NUM_PER_FILE, 1)


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the images of this module be CIFAR-10's, with the training images in two files."""
    files = BinaryFiles(
        shape=(3, 8, 8),
        images_per_file=NUM_PER_FILE,
        train=(
            binary_sha1(TRAIN.first(NUM_PER_FILE)),
            binary_sha1(TRAIN.take(torch.arange(NUM_PER_FILE, 2 * NUM_PER_FILE))),
        ),
        test=(binary_sha1(TEST),),
    )
    monkeypatch.setattr(published_images, "PUBLISHED", {"cifar10": files})


def changed(images: Images) -> Images:
    """Return the images with one value changed by one level."""
    pixels = images.pixels.clone()
    pixels[-1, -1, -1, -1] ^= 1
    return Images(pixels, images.labels)


def relabeled(images: Images) -> Images:
    labels = images.labels.clone()
    labels[0] += 1
    return Images(images.pixels, labels)


@pytest.mark.usefixtures("small_table")
def test_only_the_published_images_are_recognized() -> None:
    assert published_name(TEST) == "cifar10"
    assert are_published_training_images(TRAIN, "cifar10")
    shuffled = torch.arange(NUM_TEST).flip(0)
    for other in (
        *(changed(TEST), relabeled(TEST), TEST.take(shuffled), TEST.first(NUM_TEST - 1)),
        *(TRAIN, TRAIN.first(NUM_TEST), make_images(NUM_TEST, size=8)),
        Images(TEST.pixels, TEST.labels + 256),
        Images(TEST.pixels, TEST.labels - 1),
    ):
        assert published_name(other) is None
    for other in (changed(TRAIN), TRAIN.take(torch.arange(24).flip(0)), TEST):
        assert not are_published_training_images(other, "cifar10")


def test_pixels_in_float32_are_those_of_their_levels() -> None:
    levels = np.arange(256, dtype=np.uint8)
    for pixels in (to_float(torch.from_numpy(levels)), torch.tensor(levels / 255).float()):
        found = _to_levels(pixels)
        assert found is not None
        assert found.tolist() == levels.tolist()
    for other in (0.5 / 255, 256 / 255, -1 / 255, float("nan"), float("inf")):
        assert _to_levels(torch.tensor([0.0, other])) is None


def npz(path: Path, test: Images, train: Images | None = None, val: Images | None = None) -> str:
    arrays = {}
    for part, images in (("test", test), ("train", train), ("val", val)):
        if images is not None:
            arrays[f"x_{part}"] = images.pixels.permute(0, 2, 3, 1).numpy()
            arrays[f"y_{part}"] = images.labels.numpy()
    np.savez(path, allow_pickle=True, **arrays)
    return str(path)


@pytest.mark.usefixtures("small_table")
@pytest.mark.parametrize("train", [None, color_images(30, 2), TRAIN])
def test_a_published_test_set_keeps_its_name_in_any_file(
    tmp_path: Path, train: Images | None
) -> None:
    images, source = load_split(npz(tmp_path / "own.npz", TEST, train), "test", data_dir=NOWHERE)
    assert torch.equal(images.pixels, TEST.pixels)
    official = DATASETS["cifar10"]
    assert (source.name, source.num_classes) == ("cifar10", 10)
    assert source.published
    assert source.classes_are_known
    assert source.num_test == official.num_test
    assert source.summary == str(tmp_path / "own.npz")
    _, source = load_split(npz(tmp_path / "o.npz", changed(TEST), train), "test", data_dir=NOWHERE)
    assert (source.name, source.published) == ("o", False)


@pytest.mark.usefixtures("small_table")
def test_a_published_test_set_beside_other_classes_keeps_the_name_of_the_file(
    tmp_path: Path,
) -> None:
    train = replace_label(color_images(30, 2), 10)
    _, source = load_split(npz(tmp_path / "own.npz", TEST, train), "test", data_dir=NOWHERE)
    assert (source.name, source.num_classes, source.published) == ("own", 11, False)


def replace_label(images: Images, label: int) -> Images:
    labels = images.labels.clone()
    labels[0] = label
    return Images(images.pixels, labels)


@pytest.mark.usefixtures("small_table")
def test_training_has_the_published_name_only_on_the_published_training_images(
    tmp_path: Path,
) -> None:
    whole = load_dataset(npz(tmp_path / "own.npz", TEST, TRAIN), data_dir=NOWHERE, val_size=4)
    official = DATASETS["cifar10"]
    assert (whole.name, whole.published, whole.num_classes) == ("cifar10", True, 10)
    assert (whole.mean, whole.std) == (official.mean, official.std)
    assert (len(whole.train), len(whole.val), whole.val_is_drawn) == (20, 4, True)
    for train, val in ((changed(TRAIN), None), (TRAIN.first(20), None), (TRAIN, TRAIN.first(4))):
        path = npz(tmp_path / "own.npz", TEST, train, val)
        other = load_dataset(path, data_dir=NOWHERE, val_size=None)
        assert (other.name, other.published, other.num_classes) == ("own", True, 10)
        assert other.mean != official.mean
    path = npz(tmp_path / "own.npz", changed(TEST), TRAIN)
    own = load_dataset(path, data_dir=NOWHERE)
    assert (own.name, own.published) == ("own", False)


def test_built_in_data_sets_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(DATASETS["digits"], name="tiny-imagenet", published=True)
    monkeypatch.setitem(DATASETS, "tiny-imagenet", source)
    dataset = load_dataset("tiny-imagenet", data_dir=NOWHERE)
    assert (dataset.name, dataset.published) == ("tiny-imagenet", True)


@pytest.mark.usefixtures("small_table")
def test_an_attack_on_published_images_is_recorded_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz(Path("own.npz"), TEST)
    torch.save(build_model("small-cnn", num_classes=10).state_dict(), "w.pt")
    flags = ("--arch", "small-cnn", "--suite", "fgsm", "--dataset", "own.npz")
    succeed("attack", "w.pt", *flags)
    (record,) = Path("results").glob("w-fgsm-*.json")
    held = json.loads(record.read_text())
    assert (held["dataset"], held["published_test_set"]) == ("cifar10", True)
    assert (held["n"], held["num_test"], held["num_classes"]) == (NUM_TEST, NUM_TEST, 10)
