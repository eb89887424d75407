"""The `adrbench` program: its commands, exit codes and signals.

Results go to stdout, everything else to stderr. This is the only file that exits the process:
0 done, 1 an error the user can act on, 2 usage, 130 interrupted, 143 terminated.
"""

import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from adrbench.cli.attack import attack
from adrbench.cli.list import list_
from adrbench.cli.notes import notes_on_stderr, print_error
from adrbench.cli.report import report
from adrbench.cli.train import train
from adrbench.errors import AdrbenchError
from adrbench.runtime.signals import select_unignored
from adrbench.runtime.torchrun import is_launched

app = typer.Typer(
    help="Train adversarially robust image classifiers with ADR and its baselines, attack them "
    "with PGD and AutoAttack, and report the results beside RobustBench's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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


def print_version(is_requested: bool) -> None:
    """Print the version and exit, if requested."""
    if is_requested:
        from adrbench import __version__

        typer.echo(f"adrbench {__version__}")
        raise typer.Exit


@app.callback()
def declare_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Declare the options of the program itself."""


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "attack": attack,
    "report": report,
    "list": list_,
}
for name, command in COMMANDS.items():
    app.command(name=name)(handle_errors(command))


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handled = select_unignored()
    for number in handled:
        signal.signal(number, exit_on_signal)
    try:
        app(prog_name="adrbench")
    except SystemExit as ending:
        if is_launched() and "torch" in sys.modules:
            # Closing gloo's connections at interpreter shutdown occasionally aborts the process
            # (torch 2.15).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code if isinstance(ending.code, int) else 0)
        raise
    finally:
        # The exit code is decided and the output printed; a signal must not change either.
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
