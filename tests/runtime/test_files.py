"""Atomic writing: a file holds its old content or its new content."""

import errno
from pathlib import Path

import pytest

from adrbench.errors import AdrbenchError
from adrbench.runtime.files import check_writable, write_atomically
from full_disk import disk_of


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AdrbenchError, match="No space left on device; free the disk or write"):
        write_atomically(path, b"new and longer")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("record.json", b"old")
    ]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("record.json", b"old")
    ]


def test_a_write_creates_its_directory_and_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [
        ("record.json", b"new")
    ]


def test_checking_a_directory_creates_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(AdrbenchError, match="file/c: Not a directory; choose another directory"):
        check_writable(tmp_path / "file" / "c")


def test_a_disk_that_fills_up_in_the_middle_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_atomically(path, b"old")
    with (
        disk_of(100_000),
        pytest.raises(AdrbenchError, match=r"cannot write .*last.pt: File too large; free the"),
    ):
        write_atomically(path, b"n" * 200_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_a_killed_write_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".record.json.tmp").write_bytes(b"half of a rec")
    write_atomically(tmp_path / "record.json", b"a record")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("record.json", b"a record")
    ]
