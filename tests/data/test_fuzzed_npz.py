"""A damaged or malicious .npz file is loaded or rejected in one sentence."""

import io
import os
import pickle
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrbench.data import load_split, memory, npz
from adrbench.errors import DataError
from fuzzing import MEBIBYTE, assert_loaded_or_rejected, damage, fuzz
from payloads import Payload

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one directory for all examples, each of which replaces the previous file."""
    return tmp_path_factory.mktemp("fuzz")


def good_arrays() -> dict[str, Array]:
    levels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    return {"x_train": levels, "y_train": labels, "x_test": levels[:5], "y_test": labels[:5]}


def npz_bytes(arrays: dict[str, Array], compression: int = zipfile.ZIP_STORED) -> bytes:
    return zip_bytes({f"{key}.npy": npy_bytes(array) for key, array in arrays.items()}, compression)


def npy_bytes(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [npz_bytes(good_arrays(), compression) for compression in COMPRESSIONS]


@settings(fuzz, max_examples=400)
@given(content=st.sampled_from(ARCHIVES), seed=st.integers(0, 2**32))
def test_a_damaged_npz_is_loaded_or_rejected(folder: Path, content: bytes, seed: int) -> None:
    path = folder / "damaged.npz"
    path.write_bytes(damage(content, seed))
    assert_loaded_or_rejected(path)


dtypes = st.sampled_from(
    [
        "u1",
        "i1",
        ">i8",
        "u8",
        "f4",
        "c8",
        "?",
        "m8[s]",
        "M8[D]",
        "U3",
        "S0",
        "V0",
        "V5",
        "O",
        "u1,f4",
    ]
)
shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@fuzz
@given(key=st.sampled_from(list(good_arrays())), dtype=dtypes, shape=shapes, fortran=st.booleans())
def test_an_array_of_any_type_and_shape_is_loaded_or_rejected(
    folder: Path, key: str, dtype: str, shape: tuple[int, ...], fortran: bool
) -> None:
    array = np.zeros(shape, dtype, order="F" if fortran else "C")
    path = folder / "any.npz"
    path.write_bytes(npz_bytes(good_arrays() | {key: array}))
    assert_loaded_or_rejected(path)


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 4, 4, 3), }"
headers = st.sampled_from(
    [
        *(HEADER.replace("12", str(n)) for n in (-12, 10**10, 10**12, 10**30, "12L", "None", "0")),
        HEADER.replace("12, 4, 4, 3", "-12, -4, 4, 3"),
        HEADER.replace("(12, 4, 4, 3)", "()"),
        HEADER.replace("|u1", "|O"),
        HEADER.replace("'|u1'", "[('a', '|u1'), ('b', 'O')]"),
        HEADER.replace("'|u1'", "('|u1', (2,))"),
        HEADER.replace("'|u1'", "{'names': 3}"),
        HEADER.replace("False", "'no'"),
        HEADER.replace("'descr'", "1"),
        HEADER + ")",
        "{[]: 3}",
        "(" * 3000,
        "[" * 90 + "]" * 90,
        "-" * 9000 + "1",
        "1" * 5000,
        "'",
        "\\",
        "   x\n y",
        " " * 60_000,
        "os.system('true')",
    ]
)


@fuzz
@given(header=headers | st.text(max_size=30), version=st.sampled_from([1, 2, 3, 9]))
def test_an_array_with_any_header_is_loaded_or_rejected(
    folder: Path, header: str, version: int
) -> None:
    encoded = header.encode("utf-8")
    length = len(encoded).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + length + encoded + bytes(12 * 4 * 4 * 3)
    members = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    path = folder / "header.npz"
    path.write_bytes(zip_bytes(members | {"x_train.npy": content}))
    tracemalloc.start()
    try:
        assert_loaded_or_rejected(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_decompression_bomb_is_rejected_before_it_is_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros that are not an array, an array with too few labels, an array larger than memory."""
    good = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    large = npy_bytes(np.zeros((12, 1024, 1024, 3), np.uint8))
    other = npy_bytes(np.zeros((13, 1024, 1024, 3), np.uint8))
    monkeypatch.setattr(memory, "total_memory", lambda: 30 * MEBIBYTE)
    path = tmp_path / "bomb.npz"
    for content, words in (
        (bytes(len(large)), "not a plain array"),
        (b"\x93NUMPY\2\0" + len(large).to_bytes(4, "little") + bytes(len(large)), "not a plain"),
        (other, "13 images but y_train has 12 labels"),
        (large, "does not fit into memory"),
    ):
        path.write_bytes(zip_bytes(good | {"x_train.npy": content}, zipfile.ZIP_DEFLATED))
        assert path.stat().st_size < MEBIBYTE
        tracemalloc.start()
        message = assert_loaded_or_rejected(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert words in message
        assert peak < 4 * MEBIBYTE


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "words"),
    [
        ("class_names", (3 * 2**24,), "<U1", "class_names in .* has 50,331,648 names of up to 1 "),
        ("class_names", (3,), f"<U{2**24}", "has 3 names of up to 16,777,216 characters: at most"),
        ("class_names", (10**6,), "<U40", "at most 1,000,000 names of 10,000 characters are read"),
        ("y_test", (2**24,), "<i8", "has 5 images but y_test has 16777216 labels"),
        ("y_train", (2**24,), "<i8", "has 12 images but y_train has 16777216 labels"),
    ],
)
def test_labels_and_names_are_refused_by_their_headers(
    name: str, shape: tuple[int, ...], dtype: str, words: str, tmp_path: Path
) -> None:
    arrays = good_arrays()
    if name == "y_test":
        arrays = {key: arrays[key] for key in ("x_test", "y_test")}
    path = tmp_path / "bomb.npz"
    members = {f"{key}.npy": npy_bytes(array) for key, array in arrays.items()}
    content = npy_bytes(np.zeros(shape, dtype))
    path.write_bytes(zip_bytes(members | {f"{name}.npy": content}, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    message = assert_loaded_or_rejected(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert re.search(words, message)
    assert peak < 4 * MEBIBYTE


def test_labels_without_images_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = good_arrays()
    del arrays["x_train"]
    path = tmp_path / "own.npz"
    path.write_bytes(npz_bytes(arrays))
    monkeypatch.setattr(npz, "MAX_LABELS_ALONE", 11)
    with pytest.raises(DataError, match="has 12 labels, without images: at most 11 are read"):
        load_split(str(path), "test", data_dir=tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unusual_archives_are_loaded_or_rejected(tmp_path: Path) -> None:
    good = npz_bytes(good_arrays())
    arrays = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    encrypted = bytearray(good)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = good.find(signature)
        encrypted[place + offset] |= 1
    stream = io.BytesIO(good)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("x_train.npy", arrays["x_test.npy"])
    contents = {
        "empty": (b"", "(it is empty)"),
        "empty archive": (zip_bytes({}), "no y_test but nothing"),
        "text": (b"x_train", "not an .npz file"),
        "encrypted": (bytes(encrypted), "broken or not a plain array"),
        "twice": (stream.getvalue(), "5 images but y_train has 12 labels"),
        "in a folder": (zip_bytes({f"a/{name}": arrays[name] for name in arrays}), "but a/x_train"),
        "above": (zip_bytes({f"../{name}": arrays[name] for name in arrays}), "but ../x_train"),
        "within another": (zip_bytes({"inner.npz": good}), "but inner.npz"),
        "odd names": (zip_bytes({"a\nb\x1b": b""}), r"but a\nb\x1b:"),
        "after something": (b"#!/bin/sh\n" + good, ""),
        "high label": (npz_bytes(good_arrays() | {"y_train": np.arange(12) * 10**9}), "the label"),
        "highest": (npz_bytes(good_arrays() | {"y_train": np.array([2**64 - 1] * 12)}), "label"),
    }
    for name, (content, words) in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        message = assert_loaded_or_rejected(path)
        assert words in message, name
        assert bool(words) == bool(message), name


def test_loading_an_array_never_runs_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    payload = np.array([Payload(Path.touch, ran)] * 12, object)
    for key in good_arrays():
        path = tmp_path / "hostile.npz"
        path.write_bytes(npz_bytes(good_arrays() | {key: payload}))
        assert f"{key} in" in assert_loaded_or_rejected(path)
        path.write_bytes(zip_bytes({f"{key}.npy": pickle.dumps(Payload(Path.touch, ran))}))
        assert assert_loaded_or_rejected(path)
    path.write_bytes(pickle.dumps(Payload(Path.touch, ran)))
    assert "not an .npz file" in assert_loaded_or_rejected(path)
    assert not ran.exists()


def test_paths_that_are_not_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    (tmp_path / "dangling.npz").symlink_to("gone")
    (tmp_path / "circle.npz").symlink_to("circle.npz")
    for name, words in (
        ("folder", "train/ and test/"),
        ("pipe", "is not a file"),
        ("device", "is not a file"),
        ("dangling", "No such file"),
        ("circle", "levels of symbolic links"),
        ("x" * 300, "File name too long"),
    ):
        assert words in assert_loaded_or_rejected(tmp_path / f"{name}.npz")
