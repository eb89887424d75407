"""Atomic writing: a file has its old content or its new content, never a part of it."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adrbench.errors import AdrbenchError, UsageError, one_line


def to_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return the path that the caller gave as argument `name`; UsageError for another type."""
    try:
        return Path(value)
    except TypeError as error:
        raise UsageError(f"{name} is {one_line(repr(value))}: give a path.") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, flush it, and rename it to `path`.

    A process killed meanwhile leaves the old content or the new, and perhaps the temporary file,
    which the next write to `path` replaces. Only one process may write to `path` at a time.

    Raises:
        AdrbenchError: when the file cannot be written; the old content is then still there.

    """
    temporary = temporary_file(path)
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


def temporary_file(path: Path) -> Path:
    """Return the path of the file that `write_atomically` renames to `path`."""
    return path.with_name(f".{path.name}.tmp")


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


def check_regular_file(path: Path) -> None:
    """Raise OSError unless `path` is a regular file; opening a pipe would block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not a file")


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
    return max(0, len(os.fsencode(temporary_file(path).name)) - limit)


def _nearest_existing(directory: Path) -> Path:
    return next(place for place in (directory, *directory.parents) if place.exists())
