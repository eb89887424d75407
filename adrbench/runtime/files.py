"""Files from any source: read only if regular and within a size, and written atomically.

A file has its old content or its new content, never a part of it.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BufferedReader
from pathlib import Path

from adrbench.errors import AdrbenchError, UsageError, one_line
from adrbench.printable import is_printable


def to_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return the path that the caller gave as argument `name`; UsageError for what cannot be one.

    That is another type, a name with a NUL character, or one that is too long.
    """
    try:
        path = Path(value)
        path.lstat()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is {one_line(repr(value))}: give a path.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                f"{name} is {one_line(repr(value))}, which is too long: give a path."
            ) from error
    return path


#: The largest file of JSON that is read: the values in it can take 30 times as much memory.
MAX_JSON_BYTES = 32 * 2**20
#: Longer names are hashed in the names of temporary files, which must not be too long either.
LONGEST_NAMED = 100
#: The bytes that the name of a file may be extended by, so that names of early versions stay.
RESERVED_BYTES = len("..tmp")
#: The errors of a path at which there is no file, or a link that leads nowhere.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class UnreadableFileError(OSError):
    """A path that is not read, because of what is there; its text completes "it cannot be read".

    `filename` is the path, for code that catches the error without knowing which file it was.
    """

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(errno.EINVAL, reason, str(path))
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class EmptyFileError(UnreadableFileError):
    """A file without content."""


def open_limited(path: Path, limit: float) -> BufferedReader:
    """Open a regular file of at most `limit` bytes for reading, without ever waiting for it.

    Raises:
        UnreadableFileError: for a directory, pipe, socket or device, and for a file that is larger
            or empty, as those of the system seem to be, such as the endless ones in /proc.
        OSError: when it is missing or cannot be opened.

    """
    check_regular_file(path, limit)  # before the opening, which some devices react to
    stream = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    try:
        status = os.fstat(stream.fileno())
        _check_status(path, status, limit)
        if not status.st_size:
            raise EmptyFileError("it is empty", path)
    except OSError:
        stream.close()
        raise
    return stream


def read_limited(path: Path, limit: float) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, without waiting for it.

    It is empty for files of the system that have no size, such as those in /proc.

    Raises:
        UnreadableFileError: for a directory, pipe, socket or device, or a larger file.
        OSError: when it is missing or cannot be read.

    """
    try:
        with open_limited(path, limit) as stream:
            return stream.read(os.fstat(stream.fileno()).st_size)
    except EmptyFileError:
        return b""


def check_regular_file(path: Path, limit: float) -> None:
    """Raise UnreadableFileError unless `path` is a regular file of at most `limit` bytes."""
    _check_status(path, path.stat(), limit)


def _check_status(path: Path, status: os.stat_result, limit: float) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError("it is not a file", path)
    if status.st_size > limit:
        raise UnreadableFileError(
            f"it has {status.st_size:,} bytes, and at most {limit:,.0f} are read", path
        )


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a path, which may have become a pipe or a terminal since it was checked."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


#: What is called before each write of this thread, such as a check that a lock is still held.
_write_checks: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("write_checks", default=())


@contextmanager
def checking_writes(check: Callable[[], None]) -> Iterator[None]:
    """Within the context, write and remove nothing in this thread if `check` raises."""
    token = _write_checks.set((*_write_checks.get(), check))
    try:
        yield
    finally:
        _write_checks.reset(token)


def check_may_write() -> None:
    """Raise the AdrbenchError of a check of this thread that fails (see `checking_writes`)."""
    for check in _write_checks.get():
        check()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, flush it, and rename it to `path`.

    The temporary file is new and has a random name, so nothing that is there already is opened, and
    a link to a file at `path` is replaced; a pipe or a device, such as /dev/stdout, is not. A
    process killed meanwhile leaves the old content or the new, and perhaps the temporary file,
    which the next write to `path` removes. Only one process may write to `path` at a time.

    Raises:
        AdrbenchError: when the file cannot be written, or a check of this thread fails (see
            `checking_writes`); the old content is then still there.

    """
    check_may_write()
    check_replaceable(path)
    temporary = path.with_name(f"{_temporary_prefix(path.name)}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            check_may_write()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except OSError as error:
        raise AdrbenchError(
            f"cannot write {path}: {error.strerror or error}; free the disk or write elsewhere."
        ) from error
    with contextlib.suppress(OSError):  # a directory in which files are made need not be readable
        remove_temporary_files(path.parent, [path.name])


def check_replaceable(path: Path) -> None:
    """Raise AdrbenchError if `path` is a directory, pipe or device, which no file replaces.

    A path that cannot be one, such as one that is too long, is an AdrbenchError, too.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in NOT_THERE:
            return
        reason = getattr(error, "strerror", None) or error
        raise AdrbenchError(f"cannot write {one_line(path)}: {reason}; write elsewhere.") from error
    if not is_file:
        raise AdrbenchError(f"cannot write {path}: it is not a file; give the name of one.")


def remove_file(path: Path) -> None:
    """Remove the file at `path`, which may be missing; AdrbenchError where that is impossible."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        reason = "it is a directory" if path.is_dir() else error.strerror or error
        raise AdrbenchError(
            f"cannot remove {path}: {reason}; remove it yourself, and start again."
        ) from error


def remove_temporary_files(directory: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes left of the files with these `names`."""
    prefixes = "|".join(re.escape(_temporary_prefix(name)) for name in names)
    # Names of early versions had no random part.
    for path in matching_files(directory, re.compile(rf"({prefixes})(\.[0-9a-f]{{16}})?\.tmp")):
        with contextlib.suppress(OSError):
            path.unlink()


def _temporary_prefix(name: str) -> str:
    """Return how the names of the temporary files of a file begin, of at most 100 bytes or so."""
    encoded = os.fsencode(name)
    return f".{name if len(encoded) <= LONGEST_NAMED else hashlib.sha256(encoded).hexdigest()}"


def _flush_directory(directory: Path) -> None:
    """Make a rename survive a power failure, if the file system supports this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def matching_files(directory: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """Yield the paths in `directory` whose whole name matches; none if it is not a directory."""
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if pattern.fullmatch(path.name))


def check_writable(directory: Path) -> None:
    """Check, before long work, that files can be written to `directory`; create nothing.

    Raises:
        AdrbenchError: when it, or its nearest existing parent, is not writable.

    """
    try:
        existing = _nearest_existing(directory)
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise AdrbenchError(
            f"cannot write to {directory}: {error.strerror or error}; choose another directory."
        ) from error


def is_file_name(text: str) -> bool:
    """Return whether `text` is printable and can be the name of a file, without a directory."""
    return bool(text) and Path(text).name == text and is_printable(text)


def check_name(path: Path) -> None:
    """Check, before long work, that the name of a future file is not too long; create nothing.

    Raises:
        AdrbenchError: when the file system does not allow it.

    """
    excess = excess_length(path)
    if excess:
        raise AdrbenchError(
            f"the name of {path} is too long by {excess} bytes for its file system: choose a "
            "shorter one."
        )


def excess_length(path: Path) -> int:
    """Return by how many bytes the name of a file that is written atomically is too long, or 0."""
    try:
        limit = os.pathconf(_nearest_existing(path.parent), "PC_NAME_MAX")
    except (OSError, AttributeError, ValueError):  # the limit is unknown
        return 0
    return max(0, len(os.fsencode(path.name)) + RESERVED_BYTES - limit)


def _nearest_existing(directory: Path) -> Path:
    return next(place for place in (directory, *directory.parents) if place.exists())
