"""Atomic writing: a file holds its old content or its new content."""

import errno
import os
import stat
from pathlib import Path

import pytest

from adrbench.cli.exit_codes import describe_os_error
from adrbench.errors import AdrbenchError, UsageError
from adrbench.runtime.files import (
    UnreadableFileError,
    check_writable,
    open_limited,
    read_limited,
    to_path,
    write_atomically,
)
from full_disk import disk_of
from messages import assert_one_line
from unreadable_files import UNREADABLE


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


@pytest.mark.parametrize("name", ["record.json", f"{'long' * 50}.json"])
def test_the_temporary_file_of_a_killed_write_is_removed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, killed = tmp_path / name, []

    def kill(temporary: Path, target: Path) -> None:
        killed.append(temporary.read_bytes())
        raise SystemExit

    with monkeypatch.context() as patches:
        patches.setattr(Path, "replace", kill)
        patches.setattr(Path, "unlink", lambda path, missing_ok: None)
        with pytest.raises(SystemExit):
            write_atomically(path, b"half of a rec")
    (left,) = tmp_path.iterdir()
    assert (left.name[0], left.suffix, killed) == (".", ".tmp", [b"half of a rec"])
    (tmp_path / ".record.json.tmp").write_bytes(b"of an early version")
    others = [tmp_path / ".record.tmp", tmp_path / ".record.json.0123456789abcdef"]
    for other in others:
        other.write_bytes(b"")
    write_atomically(path, b"a record")
    write_atomically(tmp_path / "record.json", b"a record")
    assert {file.name for file in tmp_path.iterdir()} == {
        *(other.name for other in others),
        *(name, "record.json"),
    }
    assert path.read_bytes() == b"a record"


def test_a_file_that_was_written_is_no_failure_where_its_directory_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    write_atomically(tmp_path / "record.json", b"a record")
    assert (tmp_path / "record.json").read_bytes() == b"a record"


#: What no path is -> what the error says of it.
NO_PATHS = {"a\0b": "null byte", "a" * 5000: "too long", "\ud800": "surrogates not allowed"}


@pytest.mark.parametrize("name", NO_PATHS, ids=range(len(NO_PATHS)))
def test_a_name_that_no_file_has_is_one_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(AdrbenchError, match=r"^cannot write ") as raised:
        write_atomically(tmp_path / name, b"content")
    assert_one_line(str(raised.value))
    assert NO_PATHS[name] in str(raised.value)
    assert len(str(raised.value)) < 400
    with pytest.raises(UsageError, match=r"^data_dir is .*: give a path") as raised:
        to_path(name, "data_dir")
    assert_one_line(str(raised.value))
    assert len(str(raised.value)) < 300
    assert not list(tmp_path.iterdir())


def test_an_error_of_an_unknown_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, reason in {"": "it is not a file", "empty": "it is empty"}.items():
        with pytest.raises(UnreadableFileError) as raised:
            open_limited(tmp_path / name, 10)
        assert (raised.value.filename, str(raised.value)) == (str(tmp_path / name), reason)
        assert describe_os_error(raised.value).startswith(f"{tmp_path / name}: {reason}; check")


def test_a_write_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the name of the file, nor at that of its temporary file."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    path = tmp_path / "record.json"
    path.symlink_to(precious)
    (tmp_path / ".record.json.tmp").symlink_to(precious)
    write_atomically(path, b"a record")
    assert (path.read_bytes(), path.is_symlink()) == (b"a record", False)
    monkeypatch.setattr("secrets.token_hex", lambda num_bytes: "guessed")
    (tmp_path / ".record.json.guessed.tmp").symlink_to(precious)
    with pytest.raises(AdrbenchError, match=r"cannot write .*record.json: File exists"):
        write_atomically(path, b"another")
    assert (path.read_bytes(), precious.read_bytes()) == (b"a record", b"precious")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "record.json", b"a record")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record.json").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_file_of_a_possible_size_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    UNREADABLE[kind](path)
    reason = (
        "it has 1,099,511,627,776 bytes, and at most 1,000 are" if kind == "sparse" else "it is"
    )
    with pytest.raises(UnreadableFileError, match=f"^{reason}"):
        read_limited(path, 1000)


@pytest.mark.parametrize("kind", sorted(set(UNREADABLE) - {"sparse"}))
def test_pipes_and_devices_are_not_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    UNREADABLE[kind](path)
    before = sorted((one.name, one.lstat().st_mode) for one in tmp_path.iterdir())
    with pytest.raises(AdrbenchError, match="file: it is not a file; give the name of one"):
        write_atomically(path, b"a record")
    assert sorted((one.name, one.lstat().st_mode) for one in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["/proc/self/mem", "/proc/cpuinfo"])
def test_files_of_the_system_without_a_size_are_empty(name: str) -> None:
    assert read_limited(Path(name), 1000) == b""


def test_a_path_that_becomes_a_pipe_after_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr("adrbench.runtime.files.check_regular_file", lambda path, limit: None)
    with pytest.raises(UnreadableFileError, match="it is not a file"):
        read_limited(tmp_path / "fifo", 1000)


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_limited(path, 10) == b"0123456789"
    with pytest.raises(UnreadableFileError, match="it has 10 bytes, and at most 9 are read"):
        read_limited(path, 9)
