"""How the program exits: one `error:` line, and a code.

0 done, 1 an error the user can act on, 2 usage, 129 hang-up, 130 interrupted, 143 terminated.
"""

import functools
import inspect
import os
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from adrbench.cli.notes import notes_on_stderr, print_error, print_traceback
from adrbench.cli.streams import STANDARD_OUTPUT
from adrbench.errors import AdrbenchError, naming_flags
from adrbench.registry import UserCodeError
from adrbench.runtime.signals import Interrupted, discard_output_after_hangup

F = TypeVar("F", bound=Callable[..., Any])
#: The exit code after a signal is this plus the number of the signal.
SIGNALLED = 128
#: The parameter that every command has.
DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--debug", help="Also print the traceback of an error.")
    ],
)


def handle_errors(command: F) -> F:
    """Turn the errors a user can cause, and signals, into one `error:` line and an exit code.

    The command gets a flag `--debug`, which prints the traceback of an error before its line.
    """
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> Any:
        try:
            with naming_flags(), notes_on_stderr():
                return command(*args, **kwargs)
        except AdrbenchError as error:
            if not error.is_reported:
                if debug:
                    print_traceback(error)
                print_error(describe_error(error, has_traceback=debug))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.filename == STANDARD_OUTPUT:
                raise  # the program handles these, of `--help` too
            print_error(describe_os_error(error))
            raise typer.Exit(AdrbenchError.exit_code) from error
        except KeyboardInterrupt as error:
            stop = error if isinstance(error, Interrupted) else Interrupted()
            if not stop.is_reported:
                print_error(describe_interruption(stop, is_forced=bool(kwargs.get("force"))))
            raise typer.Exit(SIGNALLED + stop.number) from None

    wrapped.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), DEBUG]
    )
    return wrapped  # type: ignore[return-value]


def describe_error(error: AdrbenchError, *, has_traceback: bool) -> str:
    """Return the message of an error; for one in user code, with how to print its traceback."""
    text = str(error)
    if (
        isinstance(error, UserCodeError)
        and error.__cause__
        and not has_traceback
        and "raised" in text
    ):
        return f"{text.rstrip('.')}; --debug shows its traceback."
    return text


def describe_os_error(error: OSError) -> str:
    """Return the message of an error of the operating system."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the disk."


def describe_interruption(stop: Interrupted, *, is_forced: bool = False) -> str:
    """Return the message after a signal: where the work stopped, and how to resume it.

    A command that `is_forced` would start over, so it resumes without --force.
    """
    where = f" {stop.where}" if stop.where else ""
    if not stop.resumes:
        return f"interrupted{where}: run the same command again."
    without = " without --force" if is_forced else ""
    return f"interrupted{where}: run the same command again{without} to resume."


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit at once; the signal handler until a command installs its own (see `StopRequest`).

    An exception raised here could interrupt the import of a library, which may then fail with an
    unrelated error.
    """
    discard_output_after_hangup(number)
    print_error(describe_interruption(Interrupted(number)))
    os._exit(SIGNALLED + number)
