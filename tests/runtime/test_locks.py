"""Lock files: one process at a time."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adrbench.errors import AdrbenchError
from adrbench.runtime.files import check_may_write, write_atomically
from adrbench.runtime.locks import exclusive
from adrbench.runtime.process_group import SingleProcess
from full_disk import disk_of
from logs import logged
from unreadable_files import UNREADABLE

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


def have_no_locks(stream: object, operation: int) -> None:
    """Replace `fcntl.flock`, as on a file system without locks."""
    raise OSError(errno.ENOLCK, "No locks available")


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


@pytest.mark.parametrize("content", [b"", b"\0" * 80])
def test_a_lock_file_without_text_is_taken_over(content: bytes, tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_bytes(content)
    assert take(lock) == []


@pytest.mark.parametrize("has_locks", [True, False])
@pytest.mark.parametrize(
    "content",
    [b"precious", b"\x00\xff", b"[]", b'{"process": 3}', b"{" * 100_000, b"\0" * 5000],
    ids=range(6),
)
def test_a_file_that_is_no_lock_is_not_changed(
    content: bytes, has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / ".lock"
    lock.write_bytes(content)
    if not has_locks:
        monkeypatch.setattr("fcntl.flock", have_no_locks)
    with pytest.raises(
        AdrbenchError,
        match=r"^cannot write .*/\.lock: it is not a lock file; remove it if no process is "
        r"writing the run\.$",
    ):
        take(lock)
    assert lock.read_bytes() == content


@pytest.mark.parametrize("has_locks", [True, False])
@pytest.mark.parametrize("content", [b"precious", b"", b'{"process": 1, "host": "here"}'])
def test_a_hard_link_to_another_file_is_not_changed(
    content: bytes, has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, other = tmp_path / ".lock", tmp_path / "other"
    other.write_bytes(content)
    lock.hardlink_to(other)
    if not has_locks:
        monkeypatch.setattr("fcntl.flock", have_no_locks)
    with pytest.raises(AdrbenchError, match=r"\.lock: .*hard link.*; remove it if no process is"):
        take(lock)
    assert other.read_bytes() == content
    assert lock.samefile(other)


def test_a_lock_file_of_another_account_is_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int, mode: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / ".lock").touch()
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(AdrbenchError, match=r"Permission denied; remove it if no process is writ"):
        take(tmp_path / ".lock")


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
    assert calls.count(fcntl.LOCK_EX | fcntl.LOCK_NB) == 2


def test_a_file_system_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", have_no_locks)
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
    def refuse(path: str, flags: int, mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    with exclusive(tmp_path / ".lock", of="the run", instead=""):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_another_user_can_write_needs_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int, mode: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(
        AdrbenchError, match=r"cannot write .*\.lock: Permission denied; write else"
    ):
        take(tmp_path / ".lock")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_lock_is_only_taken_on_a_file(kind: str, tmp_path: Path) -> None:
    lock, precious = tmp_path / ".lock", tmp_path / "precious"
    precious.write_bytes(b"precious")
    UNREADABLE[kind](lock)
    with pytest.raises(AdrbenchError, match=r"cannot write .*\.lock: .*; remove it if no process"):
        take(lock)
    lock.rmdir() if kind == "directory" else lock.unlink()
    lock.symlink_to(precious)
    with pytest.raises(AdrbenchError, match=r"\.lock: Too many levels of symbolic links; remove"):
        take(lock)
    assert precious.read_bytes() == b"precious"


def remove(lock: Path) -> None:
    lock.unlink()


def replace(lock: Path) -> None:
    """Replace it by a copy, which nobody holds."""
    content = lock.read_bytes()
    lock.unlink()
    lock.write_bytes(content)


def move_directory(lock: Path) -> None:
    lock.parent.rename(lock.parent.with_name("moved"))


def replace_directory(lock: Path) -> None:
    """Replace it by a copy, as when a backup is restored."""
    move_directory(lock)
    shutil.copytree(lock.parent.with_name("moved"), lock.parent)


@pytest.mark.parametrize("lose", [remove, replace, move_directory, replace_directory])
@pytest.mark.parametrize("has_locks", [True, False])
def test_nothing_is_written_once_the_lock_is_lost(
    lose: Callable[[Path], None],
    has_locks: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_locks:
        if lose in (replace, replace_directory):
            pytest.skip("a copy differs only where the operating system has locks")
        monkeypatch.setattr("fcntl.flock", have_no_locks)
    lock = tmp_path / "run" / ".lock"
    with exclusive(lock, of="the run", instead=""):
        write_atomically(lock.with_name("last.pt"), b"own")
        lose(lock)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(
            AdrbenchError, match=r"\.lock was removed or replaced, or its directory"
        ):
            write_atomically(lock.with_name("last.pt"), b"new")
        with pytest.raises(AdrbenchError):
            check_may_write()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    write_atomically(lock.with_name("last.pt"), b"without a lock")


def test_a_lock_that_is_lost_during_a_write_is_noticed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / ".lock"
    path = tmp_path / "last.pt"
    with exclusive(lock, of="the run", instead=""):
        write_atomically(path, b"own")
        monkeypatch.setattr("os.fsync", lambda descriptor: lock.unlink(missing_ok=True))
        with pytest.raises(AdrbenchError, match="was removed or replaced"):
            write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("last.pt", b"own")]


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_lock_that_cannot_be_read_is_not_called_lost(
    has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    if not has_locks:
        monkeypatch.setattr("fcntl.flock", have_no_locks)
    with exclusive(tmp_path / ".lock", of="the run", instead=""):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "lstat", fail)
            with pytest.raises(
                AdrbenchError, match=r"^cannot read .*\.lock: Input/output error; no more was"
            ):
                write_atomically(tmp_path / "last.pt", b"new")
        write_atomically(tmp_path / "last.pt", b"own")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_other_threads_may_write_other_files(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive(lock, of="the run", instead=""):
        lock.unlink()
        thread = threading.Thread(target=write_atomically, args=(tmp_path / "other", b"content"))
        thread.start()
        thread.join()
    assert (tmp_path / "other").read_bytes() == b"content"


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    done, ready = os.pipe()
    with exclusive(lock, of="the run", instead=""):
        child = os.fork()
        if child == 0:
            os.close(ready)
            os.read(done, 1)
            os._exit(0)
    try:
        assert take(lock) == []
    finally:
        os.close(ready)
        os.waitpid(child, 0)
        os.close(done)


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
