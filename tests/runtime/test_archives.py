"""Archives: nothing is unpacked before its size, type and shape are known."""

import io
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.runtime.archives import LongDirectoryError, open_archive
from adrbench.runtime.npz import Arrays, Header, UnexpectedArrayError, open_npz

FLOATS = Header((4, 3), np.dtype(np.float32))


def write(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("n", [0, 2, 4])
def test_arrays_of_at_most_the_largest_shape_are_read(n: int, tmp_path: Path) -> None:
    values = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    with open_npz(write(tmp_path / "a.npz", x=values, other=values), 10_000) as arrays:
        found = arrays.read_all({"x": FLOATS})
    assert list(found) == ["x"]
    np.testing.assert_array_equal(found["x"], values)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, "it has no x"),
        (np.zeros((5, 3), np.float32), r"x has type float32 and shape \(5, 3\), not type float32"),
        (np.zeros((4, 2), np.float32), r"shape \(4, 2\)"),
        (np.zeros((4, 3, 1), np.float32), r"shape \(4, 3, 1\)"),
        (np.float32(1), r"shape \(\)"),
        (np.zeros((4, 3)), "type float64"),
        (np.zeros((4, 3), ">f4"), "type >f4"),
        (np.zeros((4, 3), "V4"), r"type \|V4"),
    ],
)
def test_other_arrays_are_refused_by_their_headers(
    array: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Arrays, "read", lambda *_: pytest.fail("an array was read"))
    arrays = {} if array is None else {"x": array}
    with (
        open_npz(write(tmp_path / "a.npz", **arrays), 10_000) as found,
        pytest.raises(UnexpectedArrayError, match=words),
    ):
        found.read_all({"x": FLOATS})


def test_a_large_archive_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", x=np.zeros(3 * 10**7, np.uint8))
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    with (
        pytest.raises(ValueError, match=r"^it unpacks to 30,000,128 bytes$"),
        open_npz(path, 10**6),
    ):
        pass
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_other_compression_than_that_of_numpy_is_refused() -> None:
    """bzip2 yields all that a few bytes unpack to, whatever size was declared and asked for."""
    stream, content = io.BytesIO(), io.BytesIO()
    np.save(content, np.zeros((4, 3), np.float32))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", content.getvalue())
    with pytest.raises(ValueError, match="x is compressed in another way than numpy does"):
        Arrays(stream).read_all({"x": FLOATS})


def many_entries() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number:010}", b"")
    return stream.getvalue()


def long_extra_fields() -> bytes:
    """Return an archive whose entries have 16,383 empty extra fields each."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(40):
            info = zipfile.ZipInfo(str(number))
            info.extra = struct.pack("<HH", 0xCAFE, 0) * 16_383
            archive.writestr(info, b"")
    return stream.getvalue()


@pytest.mark.parametrize("make", [many_entries, long_extra_fields])
def test_a_long_table_of_contents_is_refused_without_parsing_it(make: Callable[[], bytes]) -> None:
    stream = io.BytesIO(make())
    started = time.perf_counter()
    with pytest.raises(LongDirectoryError, match=r"^a table of contents of over 1 MiB$"):
        open_archive(stream, 2**20)
    assert time.perf_counter() - started < 0.1
    with open_archive(stream, 2**23) as archive:
        assert len(archive.namelist()) in (40, 20_000)
