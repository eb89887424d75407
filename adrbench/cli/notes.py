"""Log records of the package as lines on stderr, and how lines there are wrapped."""

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from adrbench.runtime.torchrun import is_rank_zero


class NoteHandler(logging.Handler):
    """Prints each record of INFO and above as one `note:` line, the same line once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record on rank 0."""
        text = record.getMessage()
        if text not in self.printed and is_rank_zero():
            self.printed.add(text)
            typer.echo(wrap(f"note: {text}"), err=True)


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print what the package logs while a command runs."""
    logger = logging.getLogger("adrbench")
    handler, level = NoteHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def complain(message: str) -> None:
    """Print the one sentence of an error to stderr."""
    typer.secho(wrap(f"error: {message}"), fg="red", err=True)


def wrap(line: str) -> str:
    """Break a line between words where stderr is a terminal; elsewhere it stays one line."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
