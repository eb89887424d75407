"""Locks: one process at a time writes a run or a record, and one thread evaluates a model.

The former are lock files. The operating system releases the lock of a process that exits for any
reason, so a lock file left behind by a killed process does not block others.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adrbench.errors import AdrbenchError
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

logger = logging.getLogger(__name__)

#: Held by a thread while it changes what all threads share: the mode and device of a caller's
#: model, torch's random state and precision, Python's warning filters, what `torch.fx` traces.
GLOBAL_STATE = threading.RLock()

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def exclusive(
    path: Path, *, of: str, instead: str, process_group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[None]:
    """Hold the lock file `path` within the context: on rank 0; the other ranks pass.

    `of` names what the lock protects, and `instead` what a user can do instead of waiting; both are
    parts of the error. A lock file left by a process that has exited is taken over, with a note. On
    a file system without locks a warning is logged. If the directory is not writable, no lock is
    needed or taken.

    Raises:
        AdrbenchError: when another process holds the lock, or the lock file cannot be written.

    """
    if not process_group.is_rank_zero:
        yield
        return
    missing = [parent for parent in path.parents if not parent.exists()]
    content = json.dumps(
        {"process": os.getpid(), "host": socket.gethostname(), "acquired": time.time_ns()}
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _acquire(path, content, of, instead)
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
            if path.read_text() == content:
                path.unlink()
        stream.close()
        with contextlib.suppress(OSError):  # a directory with new files in it stays
            for parent in missing:
                parent.rmdir()


def _acquire(path: Path, content: str, of: str, instead: str) -> IO[bytes]:
    """Return the open lock file, holding `content`, locked where the file system allows it."""
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
            holder = _read_holder(stream) or "another process"
            logger.warning(
                f"{path} cannot be locked ({error.strerror}): make sure that {holder} is not "
                f"writing {of} now."
            )
            break
        if _is_at(path, stream):
            if former := _read_holder(stream):
                logger.info(f"took over the lock on {of} from {former}, which has exited.")
            break
        stream.close()  # its former holder removed the file between our open and our lock
    try:
        stream.truncate(0)
        stream.write(content.encode())
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
        raise OSError(errno.ENOLCK, "this system does not support file locks") from error
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(path: Path, stream: IO[bytes]) -> bool:
    """Return whether the open file is the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _read_holder(stream: IO[bytes]) -> str | None:
    """Return the process that wrote a lock file, as text; None where it cannot be read."""
    stream.seek(0)
    try:
        held = json.loads(stream.read(4096))
        return f"process {held['process']} on {held['host']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
