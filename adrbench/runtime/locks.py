"""Locks: one process at a time writes a run or a record, and one thread evaluates a model.

The former are lock files. The operating system releases the lock of a process that exits for any
reason, so a lock file left behind by a killed process does not block others.
"""

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from adrbench.errors import AdrbenchError
from adrbench.printable import get_logger
from adrbench.runtime.files import (
    UnreadableFileError,
    checking_writes,
    read_limited,
    write_atomically,
)
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

logger = get_logger(__name__)

#: Held by a thread while it changes what all threads share: the mode and device of a caller's
#: model, torch's random state and precision, Python's warning filters, what `torch.fx` traces.
GLOBAL_STATE = threading.RLock()

#: What the operating system reports where a file system has no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: For so long, taking a lock is tried again: its former holder may just have removed its file.
RETRY_SECONDS = 0.1
#: The text of a lock file, which names its holder, is not longer.
MAX_TEXT_BYTES = 4096


@contextmanager
def exclusive(
    path: Path, *, of: str, instead: str, process_group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[None]:
    """Hold the lock file `path` within the context: on rank 0; the other ranks pass.

    `of` names what the lock protects, and `instead` what a user can do instead of waiting; both are
    parts of the error. A lock file left by a process that has exited is taken over, with a note. On
    a file system without locks a warning is logged. If the directory is not writable, no lock is
    needed or taken. Within the context this thread writes no file once the lock file is removed or
    replaced, or its directory is moved.

    Raises:
        AdrbenchError: when another process holds the lock, the lock file cannot be written, or what
            is at `path` is no lock file, which is then not changed.

    """
    if not process_group.is_rank_zero:
        yield
        return
    missing = [parent for parent in path.parents if not parent.exists()]
    held = _HeldLock(path, of)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_needed = held.acquire(instead)
    except OSError as error:
        # A lock file that could not be written was removed; what is there is not ours.
        advice = f"remove it if no process is writing {of}" if _exists(path) else "write elsewhere"
        raise AdrbenchError(f"cannot write {path}: {error.strerror or error}; {advice}.") from error
    if not is_needed:
        yield
        return
    try:
        with checking_writes(held.check):
            yield
    finally:
        held.release()
        with contextlib.suppress(OSError):  # a directory with new files in it stays
            for parent in missing:
                parent.rmdir()


class _HeldLock:
    """A lock file at `path`, which contains its holder, and the lock of the operating system."""

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of
        holder = {"process": os.getpid(), "host": socket.gethostname(), "acquired": time.time_ns()}
        self.content = json.dumps(holder).encode()
        # The library's substitute for file systems without locks would break those of other hosts.
        self.lock = FileLock(path, fallback_to_soft=False, on_acquired=self._write_holder)
        #: Device and inode of the file while the operating system locks it, which keeps it in use.
        self.file: tuple[int, int] | None = None

    def acquire(self, instead: str) -> bool:
        """Take the lock, which is not waited for; return False where none is needed.

        Raises:
            AdrbenchError: when another process holds it.
            OSError: when the file cannot be written.

        """
        try:
            self.lock.acquire(timeout=RETRY_SECONDS, poll_interval=RETRY_SECONDS / 10)
        except Timeout:
            holder = _read_holder(self._read()) or "another process"
            raise AdrbenchError(
                f"{self.of} is being written by {holder}: wait for it, stop it, or {instead}."
            ) from None
        except OSError as error:
            if error.errno == errno.EROFS or not os.access(self.path.parent, os.W_OK):
                return False
            if error.errno not in WITHOUT_LOCKS:
                raise
            content = self._read()
            _check_lock_file(self.path.lstat(), content)
            holder = _read_holder(content) or "another process"
            logger.warning(
                f"{self.path} cannot be locked ({error.strerror}): make sure that {holder} is not "
                f"writing {self.of} now."
            )
            write_atomically(self.path, self.content)
        return True

    def check(self) -> None:
        """Raise AdrbenchError unless the file at the path is still the one of this lock."""
        try:
            is_own = self._is_own()
        except OSError as error:
            raise AdrbenchError(
                f"cannot read {self.path}: {error.strerror or error}; no more was written: check "
                "the disk, and run the same command again."
            ) from error
        if not is_own:
            raise AdrbenchError(
                f"{self.path} was removed or replaced, or its directory was moved, so another "
                f"process may be writing {self.of}, and no more was written: make sure that none "
                "is, and run the same command again."
            )

    def release(self) -> None:
        """Remove the file if it is still that of this lock, and release the lock."""
        with contextlib.suppress(OSError):
            if self._is_own():
                self.path.unlink()
        self.lock.release()

    def _is_own(self) -> bool:
        """Return whether the file at the path is that of this lock; OSError if that is unknown."""
        try:
            status = self.path.lstat()
            if self.file is not None:
                return (status.st_dev, status.st_ino) == self.file
            return read_limited(self.path, MAX_TEXT_BYTES) == self.content
        except (FileNotFoundError, NotADirectoryError, UnreadableFileError):
            return False

    def _write_holder(self, descriptor: int) -> None:
        """Replace the text in the locked file, and note who wrote it before."""
        status = os.fstat(descriptor)
        content = os.pread(descriptor, MAX_TEXT_BYTES, 0)
        _check_lock_file(status, content)
        former = _read_holder(content)
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, self.content, 0)
        except OSError:
            self.path.unlink()
            raise
        self.file = (status.st_dev, status.st_ino)
        if former:
            logger.info(f"took over the lock on {self.of} from {former}, which has exited.")

    def _read(self) -> bytes:
        try:
            return read_limited(self.path, MAX_TEXT_BYTES)
        except OSError:
            return b""


def _exists(path: Path) -> bool:
    """Return whether anything is at `path`, such as a link that leads nowhere."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _check_lock_file(status: os.stat_result, content: bytes) -> None:
    """Raise OSError unless a file is one that only ever was a lock, so its text may be replaced.

    It has the text of a holder, or none: a power failure can leave it empty or filled with zeros.
    """
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, "it is not a file")
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, "it is a hard link to another file")
    is_blank = not content.strip(b"\0")
    if status.st_size > MAX_TEXT_BYTES or not (is_blank or _read_holder(content)):
        raise OSError(errno.EEXIST, "it is not a lock file")


def _read_holder(content: bytes) -> str | None:
    """Return the process that wrote a lock file, as text; None where that is not readable."""
    try:
        held = json.loads(content)
        return f"process {held['process']} on {held['host']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
