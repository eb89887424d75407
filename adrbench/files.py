"""Files that are whole or not there: written by rename, and by one process at a time."""

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adrbench.errors import AdrbenchError
from adrbench.notes import Say


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
def only_writer(path: Path, of: str, instead: str, say: Say) -> Iterator[None]:
    """Be the only process that holds the lock file `path`, which goes away at the end.

    `of` is what the lock guards and `instead` what a user can do who may not wait, for the error.
    The system drops the lock of a process that has ended, however it ended; `say` hears that such
    a file was found. On a file system without locks it hears that nothing guards the files.

    Raises:
        AdrbenchError: naming the process that holds the lock, or when it cannot be written.

    """
    missing = [place for place in path.parents if not place.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _lock(path, of, instead, say)
    except OSError as error:
        raise AdrbenchError(
            f"cannot write {path}: {error.strerror or error}; write elsewhere."
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        stream.close()
        with contextlib.suppress(OSError):  # one holds what was written meanwhile
            for place in missing:
                place.rmdir()


def _lock(path: Path, of: str, instead: str, say: Say) -> BinaryIO:
    """Return the open lock file, which holds who we are and is locked where that is possible."""
    import fcntl  # reading reports needs no locks, and goes on systems without this module

    while True:
        stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(stream) or "another process"
            stream.close()
            raise AdrbenchError(
                f"{of} is being written by {holder}: wait for it, stop it, or {instead}."
            ) from None
        except OSError as error:
            say(
                f"the file system of {path} has no locks ({error.strerror}): let nobody else "
                f"write {of}."
            )
        if _is_at(path, stream):
            break
        stream.close()  # whoever held it has just removed it
    former = _read_holder(stream)
    if former:
        say(
            f"{of} was left by {former}, which has ended without a goodbye: its lock is taken over."
        )
    us = {"process": os.getpid(), "host": socket.gethostname()}
    stream.truncate(0)
    stream.write(json.dumps(us).encode())
    stream.flush()
    return stream


def _is_at(path: Path, stream: BinaryIO) -> bool:
    """Tell whether the open file is the one that lies at `path` now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _read_holder(stream: BinaryIO) -> str | None:
    """Return who wrote a lock file, in words."""
    stream.seek(0)
    try:
        held = json.loads(stream.read(4096))
        return f"process {held['process']} on {held['host']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
