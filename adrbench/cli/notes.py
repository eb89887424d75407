"""Log records and errors as lines on stderr, wrapped to the width of a terminal."""

import logging
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from adrbench.printable import printable
from adrbench.runtime.torchrun import is_rank_zero


class NoteHandler(logging.Handler):
    """Prints each log record of level INFO or above as one `note:` line; repeats are dropped."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record, on rank 0 only."""
        text = record.getMessage()
        if text not in self.printed and is_rank_zero():
            self.printed.add(text)
            typer.echo(wrap_for_terminal(f"note: {text}"), err=True)


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print the package's log records to stderr while a command runs, and printable warnings.

    Deprecations in torch, which timm and other libraries cause, are left out.
    """
    logger = logging.getLogger("adrbench")
    handler, level = NoteHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of a library, which may quote a file, to stderr (see `warnings`)."""
    text = f"{filename}:{lineno}: {category.__name__}: {message}"
    print(printable(text), file=file or sys.stderr)


def print_error(message: str) -> None:
    """Print an error message, which may quote a file or the command line, as one `error:` line."""
    typer.secho(wrap_for_terminal(f"error: {printable(message)}"), fg="red", err=True)


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error to stderr, whose messages may quote a file."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    typer.echo("\n".join(map(printable, lines)), err=True)


def wrap_for_terminal(line: str) -> str:
    """Return `line` wrapped between words if stderr is a terminal, else unchanged."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
