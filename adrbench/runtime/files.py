"""Files that are whole or not there: written by rename, and by one process at a time."""

import contextlib
import errno
import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adrbench.errors import AdrbenchError

logger = logging.getLogger(__name__)

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` by way of a temporary file beside it, flushed and renamed.

    A process that is killed leaves the old content or the new, and perhaps the temporary file,
    which the next write to `path` uses again. There has to be one writer at a time.

    Raises:
        AdrbenchError: when it cannot be written; the old content is then still there.

    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except OSError as error:
        raise AdrbenchError(
            f"cannot write {path}: {error.strerror or error}; free the disk or write elsewhere."
        ) from error


def _flush_directory(directory: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_regular_file(path: Path) -> None:
    """Raise OSError unless `path` is a regular file: opening a pipe would wait for its writer."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not a file")


def check_writable(directory: Path) -> None:
    """Make sure, before long work, that files can be written to `directory`; create nothing.

    Raises:
        AdrbenchError: when it, or the nearest directory above that exists, takes no files.

    """
    try:
        existing = next(place for place in (directory, *directory.parents) if place.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise AdrbenchError(
            f"cannot write to {directory}: {error.strerror or error}; choose another place."
        ) from error


@contextmanager
def only_writer(path: Path, of: str, instead: str) -> Iterator[None]:
    """Be the only process that holds the lock file `path`, which goes away at the end.

    `of` is what the lock guards and `instead` what a user can do who may not wait, for the error.
    The system drops the lock of a process that has ended, however it ended; a lock file that such a
    process left is taken over, with a note. On a file system without locks a warning says that
    nothing guards the files. Where nothing can be written, nothing has to be guarded.

    Raises:
        AdrbenchError: naming the process that holds the lock, or when it cannot be written.

    """
    missing = [place for place in path.parents if not place.exists()]
    us = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "life": time.time_ns()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _lock(path, us, of, instead)
    except OSError as error:
        if error.errno in READ_ONLY:
            yield
            return
        raise AdrbenchError(
            f"cannot write {path}: {error.strerror or error}; write elsewhere."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == us:
                path.unlink()
        stream.close()
        with contextlib.suppress(OSError):  # one holds what was written meanwhile
            for place in missing:
                place.rmdir()


def _lock(path: Path, us: str, of: str, instead: str) -> IO[bytes]:
    """Return the open lock file, which holds who we are and is locked where that is possible."""
    while True:
        stream = path.open("a+b", buffering=0)
        try:
            _flock(stream)
        except BlockingIOError:
            holder = _read_holder(stream) or "another process"
            stream.close()
            raise AdrbenchError(
                f"{of} is being written by {holder}: wait for it, stop it, or {instead}."
            ) from None
        except OSError as error:
            holder = _read_holder(stream) or "somebody else"
            logger.warning(
                f"{path} cannot be locked ({error.strerror}): make sure that {holder} is not "
                f"writing {of} now."
            )
            break
        if _is_at(path, stream):
            if former := _read_holder(stream):
                logger.info(f"{of} was left by {former}, which is gone: its lock is taken over.")
            break
        stream.close()  # whoever held it has just removed it
    try:
        stream.truncate(0)
        stream.write(us.encode())
    except OSError:
        path.unlink()
        stream.close()
        raise
    return stream


def _flock(stream: IO[bytes]) -> None:
    """Lock a file without waiting; OSError where it is locked or cannot be."""
    try:
        import fcntl
    except ModuleNotFoundError as error:
        raise OSError(errno.ENOLCK, "this system has no such locks") from error
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(path: Path, stream: IO[bytes]) -> bool:
    """Tell whether the open file is the one that lies at `path` now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _read_holder(stream: IO[bytes]) -> str | None:
    """Return who wrote a lock file, in words."""
    stream.seek(0)
    try:
        held = json.loads(stream.read(4096))
        return f"process {held['process']} on {held['host']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
