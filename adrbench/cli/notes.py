"""Log records and errors as lines on stderr, wrapped to the width of a terminal."""

import logging
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

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
    """Print the package's log records to stderr while a command runs, but no deprecation in torch.

    timm and other libraries that a user's code imports cause such warnings.
    """
    logger = logging.getLogger("adrbench")
    handler, level = NoteHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def print_error(message: str) -> None:
    """Print an error message to stderr, as one `error:` line."""
    typer.secho(wrap_for_terminal(f"error: {message}"), fg="red", err=True)


def wrap_for_terminal(line: str) -> str:
    """Return `line` wrapped between words if stderr is a terminal, else unchanged."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
