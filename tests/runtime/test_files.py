"""Files: whole or not there, and one writer at a time."""

import errno
import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adrbench.errors import AdrbenchError
from adrbench.runtime.files import check_writable, only_writer, write_atomically
from full_disk import disk_of
from logs import logged

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys
from pathlib import Path
from adrbench.runtime.files import only_writer
with only_writer(Path(sys.argv[1]), "the run", "give another --name"):
    print("held", flush=True)
    sys.stdin.read()
"""


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


def test_a_write_makes_its_directory_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [
        ("record.json", b"new")
    ]


def test_checking_a_place_creates_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(AdrbenchError, match="file/c: Not a directory; choose another place"):
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


def test_what_a_killed_write_left_is_used_again(tmp_path: Path) -> None:
    (tmp_path / ".record.json.tmp").write_bytes(b"half of a rec")
    write_atomically(tmp_path / "record.json", b"a record")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("record.json", b"a record")
    ]


# One writer


@contextmanager
def held_elsewhere(lock: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(lock: Path) -> list[str]:
    """Take the lock and return what was logged."""
    with logged() as messages, only_writer(lock, "the run", "give another --name"):
        assert json.loads(lock.read_text())["process"]
    assert not lock.exists()
    return messages


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with held_elsewhere(lock) as first:
        with pytest.raises(
            AdrbenchError,
            match=rf"the run is being written by process {first.pid} on .+: wait for it, stop it, "
            "or give another --name",
        ):
            take(lock)
        first.communicate("")
    assert take(lock) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with held_elsewhere(lock) as first:
        first.kill()
        first.wait()
    assert lock.exists()
    (said,) = take(lock)
    assert f"process {first.pid} on" in said
    assert "its lock is taken over" in said


def test_a_lock_file_that_says_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for content in (b"", b"\x00\xff", b"[]", b'{"process": 3}', b"{" * 100_000):
        lock.write_bytes(content)
        assert take(lock) == []


def test_a_lock_leaves_no_directories_behind(tmp_path: Path) -> None:
    take(tmp_path / "checkpoints" / "run" / ".lock")
    assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "checkpoints" / "run" / ".lock", "", ""):
        (tmp_path / "checkpoints" / "run" / "last.pt").write_bytes(b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "run", "last.pt"]


def test_a_lock_that_its_holder_removed_meanwhile_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before the former holder removed the file and locked after: it is made anew."""
    lock = tmp_path / ".lock"
    calls: list[int] = []
    flock = fcntl.flock

    def late(stream: object, operation: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(operation)
        flock(stream, operation)  # type: ignore[arg-type]

    monkeypatch.setattr("fcntl.flock", late)
    assert take(lock) == []
    assert len(calls) == 2


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stream: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    lock = tmp_path / ".lock"
    (said,) = take(lock)
    assert "cannot be locked (No locks available): make sure that somebody else is not" in said
    with only_writer(lock, "the run", ""):
        (said,) = take(lock)
        assert "make sure that process" in said
        lock.write_text("of another process")
    assert lock.read_text() == "of another process", "whose file it is removes it"


@pytest.mark.usefixtures("nothing_logged")
def test_where_nothing_can_be_written_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str, buffering: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with only_writer(tmp_path / ".lock", "the run", ""):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdrbenchError, match=r"cannot write .*file/.lock: .*; write elsewhere"):
        take(tmp_path / "file" / ".lock")


def test_a_lock_for_which_there_is_no_room(tmp_path: Path) -> None:
    with disk_of(0), pytest.raises(AdrbenchError, match=r"cannot write .*\.lock: File too large"):
        take(tmp_path / "run" / ".lock")
    assert not list(tmp_path.rglob(".lock"))
