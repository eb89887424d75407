"""How the program exits: one `error:` line, and a code.

0 done, 1 an error the user can act on, 2 usage, 130 interrupted, 143 terminated.
"""

import functools
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import typer

from adrbench.cli.notes import notes_on_stderr, print_error
from adrbench.errors import AdrbenchError

F = TypeVar("F", bound=Callable[..., Any])
#: The exit code after a signal is this plus the number of the signal.
SIGNALLED = 128


def handle_errors(command: F) -> F:
    """Turn the errors a user can cause, and signals, into one `error:` line and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with notes_on_stderr():
                return command(*args, **kwargs)
        except AdrbenchError as error:
            if not error.is_reported:
                print_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print_error(
                f"{where}{error.strerror or error}; check the path, its permissions and the disk."
            )
            raise typer.Exit(AdrbenchError.exit_code) from error
        except KeyboardInterrupt as interruption:
            number = getattr(interruption, "number", signal.SIGINT)
            if not getattr(interruption, "is_reported", False):
                print_error(describe_stop(getattr(interruption, "where", ""), kwargs.get("force")))
            raise typer.Exit(SIGNALLED + number) from None

    return wrapped  # type: ignore[return-value]


def describe_stop(where: str, force: bool | None) -> str:
    """Return the message after a signal: what is saved, and how to resume."""
    without = " without --force" if force else ""
    if where:
        return f"interrupted: {where}; the same command{without} resumes from there."
    return f"interrupted: saved progress is kept; run the same command{without} again to resume."


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit at once; the signal handler until a command installs its own (see `StopRequest`).

    An exception raised here could interrupt the import of a library, which may then fail with an
    unrelated error.
    """
    print_error(describe_stop("", None))
    os._exit(SIGNALLED + number)
