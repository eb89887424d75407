"""The file of a model's outputs: what is written is read, and what is damaged is refused."""

import hashlib
import re
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.errors import RecordError
from adrbench.results import outputs as files
from adrbench.results.outputs import (
    Outputs,
    OutputsFile,
    OutputsFinder,
    find_excess,
    read_outputs,
    write_outputs,
)


def make_outputs(n: int = 5, num_classes: int = 3) -> Outputs:
    random = np.random.default_rng(0)
    return Outputs(
        labels=np.arange(n) % num_classes,
        clean_logits=random.normal(size=(n, num_classes)).astype(np.float32),
        adversarial_logits=random.normal(size=(n, num_classes)).astype(np.float32),
        linf=random.random(n, np.float32),
        l2=random.random(n, np.float32),
        images=random.random((2, 1, 4, 4), np.float32),
        adversarial_images=random.random((2, 1, 4, 4), np.float32),
        class_names=("<script>", "ba$h", "ü"),
    )


def test_outputs_survive_a_round_trip(tmp_path: Path) -> None:
    outputs = make_outputs()
    path = tmp_path / "run-pgd-20.npz"
    found = read_outputs(path, write_outputs(path, outputs))
    assert found.class_names == outputs.class_names
    for name in ("labels", "clean_logits", "adversarial_logits", "linf", "l2", "images"):
        np.testing.assert_array_equal(getattr(found, name), getattr(outputs, name))


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    file = write_outputs(path, make_outputs())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="has changed since its record was written"):
        read_outputs(path, file)


def test_the_right_one_of_two_files_of_a_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = write_outputs(tmp_path / "a" / "run.npz", make_outputs(4))
    second = write_outputs(tmp_path / "run.npz", make_outputs(5))
    finder = OutputsFinder.search([tmp_path])
    sizes = [len(found.labels) for one in (first, second) if (found := finder.read(one))]
    assert sizes == [4, 5]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    file = write_outputs(tmp_path / "run.npz", make_outputs())
    finder = OutputsFinder.search([tmp_path / "run.json"])
    assert finder.read(file) is not None
    (tmp_path / "run.npz").unlink()
    assert finder.read(file) is None
    assert OutputsFinder.search([tmp_path]).read(file) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.array([0, 1, 2, 0, 3]), "labels are not those of 3 classes"),
        ("linf", np.zeros(4, np.float32), "linf has shape (4,), not (5,)"),
        ("class_names", ("one",), "there are 1 names of 3 classes"),
        ("adversarial_images", np.zeros((1, 1, 4, 4), np.float32), "adversarial_images has shape"),
        ("labels", np.zeros(5, np.float32), "labels has type float32, not int64"),
        ("labels", np.zeros((5, 1), np.int64), "labels has shape (5, 1)"),
        ("clean_logits", np.zeros((5, 3), "U1"), "clean_logits has type <U1, not float32"),
        ("linf", np.zeros(5, np.complex64), "linf has type complex64, not float32"),
        ("images", np.zeros((2, 1, 4, 4), np.bool_), "images has type bool, not float32"),
        ("linf", np.full(5, np.nan, np.float32), "linf has values that are not sizes"),
        ("l2", np.full(5, np.inf, np.float32), "l2 has values that are not sizes"),
        ("l2", np.full(5, -1, np.float32), "l2 has values that are not sizes"),
        ("images", np.full((2, 1, 4, 4), np.nan, np.float32), "images has values outside [0, 1]"),
        ("images", np.full((2, 1, 4, 4), 2, np.float32), "images has values outside [0, 1]"),
    ],
)
def test_outputs_that_do_not_fit_together_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(make_outputs(), **{name: value})


@pytest.mark.parametrize("shape", [(2, 3, 0, 4), (2, 0, 4, 4), (1, 1, 1, 1025)])
def test_images_of_impossible_sizes_are_refused(shape: tuple[int, ...]) -> None:
    images = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="with a side not from 1 to 1024"):
        replace(make_outputs(), images=images, adversarial_images=images)


@pytest.mark.parametrize(
    ("n", "num_classes", "excess"),
    [
        (10_000, 1_000, None),
        (5_000, 21_841, None),
        (50_000, 21_841, "they take 8,737,396,608 bytes, and at most 1,073,741,824 are kept"),
        (500_001, 2, "they are on 500,001 images of 2 classes, and at most 500,000 of"),
        (1, 100_000, "they are on 1 images of 100,000 classes, and at most 500,000 of"),
    ],
)
def test_outputs_that_are_too_large_are_not_kept(
    n: int, num_classes: int, excess: str | None
) -> None:
    found = find_excess(n, num_classes, (8, 3, 32, 32))
    assert found is None if excess is None else excess in (found or "")


def pack(path: Path, **changes: Any) -> OutputsFile:
    """Write a file of outputs with other arrays, as no evaluation would, and describe it."""
    outputs = make_outputs()
    arrays = {**vars(outputs), "class_names": np.array(outputs.class_names)}
    np.savez_compressed(path, **(arrays | changes))
    return OutputsFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_names": np.array([1, 2, 3])}, "class_names has type int64"),
        ({"class_names": np.array("abc")}, "and shape ()"),
        ({"class_names": np.array([None] * 3)}, "class_names contains objects"),
        ({"labels": np.array([2**64 - 1] * 5, np.uint64)}, "labels has type uint64, not int64"),
        ({"linf": np.zeros(5, ">f4")}, "linf has type >f4, not float32"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = tmp_path / "run.npz"
    with pytest.raises(RecordError, match=re.escape(reason)):
        read_outputs(path, pack(path, **changes))


def test_a_file_that_unpacks_to_more_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.npz"
    file = pack(path, extra=np.zeros(10**6, np.uint8))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    monkeypatch.setattr(files, "EXTRA_BYTES", 0)
    with pytest.raises(RecordError, match=r"it unpacks to 1,00\d,\d{3} bytes"):
        read_outputs(path, file)


@pytest.mark.parametrize("member", [b"no array", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_members_that_are_not_arrays_are_refused(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "run.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in vars(make_outputs()):
            archive.writestr(f"{name}.npy", member)
    file = OutputsFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(RecordError, match="does not contain the outputs of a model"):
        read_outputs(path, file)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.zeros(10**6, np.int64)},
        {"linf": np.zeros(10**6, np.float32)},
        {"images": np.zeros((5, 1, 1000, 1000), np.float32)},
        {"class_names": np.zeros(10**6, "<U1")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_shapes_that_do_not_fit_together_are_refused_by_their_headers(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "run.npz"
    np.savez_compressed(path, **{**vars(make_outputs()), **changes})
    file = OutputsFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    tracemalloc.start()
    with pytest.raises(RecordError, match="does not contain the outputs of a model"):
        read_outputs(path, file)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
