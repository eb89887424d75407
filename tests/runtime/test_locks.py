"""Lock files: one process at a time."""

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
from adrbench.runtime.locks import exclusive
from adrbench.runtime.process_group import SingleProcess
from full_disk import disk_of
from logs import logged

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from adrbench.runtime.locks import exclusive
with exclusive(Path(sys.argv[1]), of="the run", instead="give another --name"):
    print("held", flush=True)
    sys.stdin.read()
"""


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
    with logged() as messages, exclusive(lock, of="the run", instead="give another --name"):
        assert json.loads(lock.read_text())["process"]
    assert not lock.exists()
    return messages


def test_a_second_process_gets_an_error_that_names_the_first(tmp_path: Path) -> None:
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
    (message,) = take(lock)
    assert f"took over the lock on the run from process {first.pid} on" in message
    assert message.endswith(", which has exited.")


def test_a_lock_file_without_a_readable_holder_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for content in (b"", b"\x00\xff", b"[]", b'{"process": 3}', b"{" * 100_000):
        lock.write_bytes(content)
        assert take(lock) == []


def test_a_lock_removes_the_directories_it_created_where_they_are_empty(tmp_path: Path) -> None:
    take(tmp_path / "checkpoints" / "run" / ".lock")
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "checkpoints" / "run" / ".lock", of="", instead=""):
        (tmp_path / "checkpoints" / "run" / "last.pt").write_bytes(b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "run", "last.pt"]


def test_a_lock_file_that_its_holder_removed_meanwhile_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder removes the file between our opening it and our locking it."""
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


def test_a_file_system_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    lock = tmp_path / ".lock"
    (message,) = take(lock)
    assert "cannot be locked (No locks available): make sure that another process is not" in message
    with exclusive(lock, of="the run", instead=""):
        (message,) = take(lock)
        assert "make sure that process" in message
        lock.write_text("of another process")
    assert lock.read_text() == "of another process", "only its owner removes a lock file"


@pytest.mark.usefixtures("nothing_logged")
def test_a_read_only_file_system_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str, buffering: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with exclusive(tmp_path / ".lock", of="the run", instead=""):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdrbenchError, match=r"cannot write .*file/.lock: .*; write elsewhere"):
        take(tmp_path / "file" / ".lock")


def test_a_full_disk_leaves_no_lock_file(tmp_path: Path) -> None:
    with disk_of(0), pytest.raises(AdrbenchError, match=r"cannot write .*\.lock: File too large"):
        take(tmp_path / "run" / ".lock")
    assert not list(tmp_path.rglob(".lock"))


def test_only_rank_zero_holds_the_lock(tmp_path: Path) -> None:
    class RankOne(SingleProcess):
        rank, size, is_rank_zero = 1, 2, False

    lock = tmp_path / ".lock"
    with (
        exclusive(lock, of="the run", instead=""),
        exclusive(lock, of="the run", instead="", process_group=RankOne()),
    ):
        assert lock.exists()
    assert not lock.exists()
