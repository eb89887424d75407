"""Standard streams that are closed, full, or read by a program that has exited.

A closed stream discards what is written to it. A failure to write to stderr changes neither the
work of a command nor its exit code; one to write to stdout is an error that names the stream.
"""

import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = 0, 1, 2
#: What errors call the file of stdout.
STANDARD_OUTPUT = "standard output"


class StandardOutput(io.FileIO):
    """The file of stdout, named in its errors."""

    def write(self, content: "ReadableBuffer", /) -> int:
        """Write bytes, and return how many were written."""
        try:
            written = super().write(content)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise
        if is_blocked(written):
            raise OSError(errno.EIO, "it does not wait, and is full", STANDARD_OUTPUT)
        return written


class StandardError(io.FileIO):
    """The file of stderr, which discards what cannot be written."""

    def write(self, content: "ReadableBuffer", /) -> int:
        """Write bytes, and return how many were written or discarded."""
        with contextlib.suppress(OSError):
            written = super().write(content)
            if not is_blocked(written):
                return written
        return memoryview(content).nbytes


def is_blocked(written: int | None) -> bool:
    """Return whether a write wrote nothing because its file, a full pipe, is not waited for.

    Its result is then None, which the library's types omit.
    """
    return written is None


def prepare_streams() -> None:
    """Open the closed ones of the standard streams, and set how the others fail.

    The number of a closed stream would otherwise be that of the next file that is opened, which
    output of a library could then damage. Streams that a caller has replaced remain.
    """
    for number in (STDIN, STDOUT, STDERR):
        if not is_open(number):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrap(StandardOutput(STDOUT, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(StandardError(STDERR, "w", closefd=False), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_open(number: int) -> bool:
    """Return whether a file with this number is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def discard_output() -> None:
    """Discard what stdout has not written, which would be written again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)


def _wrap(file: io.FileIO, replaced: TextIO | None) -> TextIO:
    """Return a text stream to a file, with the properties of the stream that it replaces."""
    if replaced is not None:
        replaced.flush()
    is_unbuffered = getattr(replaced, "write_through", False)  # as with `python -u`
    return io.TextIOWrapper(
        file if is_unbuffered else io.BufferedWriter(file),
        encoding=getattr(replaced, "encoding", "utf-8"),
        line_buffering=getattr(replaced, "line_buffering", False),
        write_through=is_unbuffered,
    )
