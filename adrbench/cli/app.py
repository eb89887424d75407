"""The command line: parse, call, print.

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
from adrbench.cli.notes import complain, notes_on_stderr
from adrbench.cli.report import report
from adrbench.cli.train import train
from adrbench.errors import AdrbenchError
from adrbench.runtime.signals import select_unignored
from adrbench.runtime.torchrun import is_launched

app = typer.Typer(
    help="Train adversarially robust image classifiers with ADR and its baselines, attack them "
    "with PGD and AutoAttack, and report them beside RobustBench.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

F = TypeVar("F", bound=Callable[..., Any])
#: The exit code of a program that a signal ended is this and the signal's number.
SIGNALLED = 128


def exits(command: F) -> F:
    """Turn what a user can cause into one `error:` line and the right exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with notes_on_stderr():
                return command(*args, **kwargs)
        except AdrbenchError as error:
            if not error.is_reported:
                complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            complain(f"{where}{error.strerror or error}; check the path, its rights and the disk.")
            raise typer.Exit(AdrbenchError.exit_code) from error
        except KeyboardInterrupt as interruption:
            number = getattr(interruption, "number", signal.SIGINT)
            if not getattr(interruption, "is_reported", False):
                complain(describe_stop(getattr(interruption, "where", ""), kwargs.get("force")))
            raise typer.Exit(SIGNALLED + number) from None

    return wrapped  # type: ignore[return-value]


def describe_stop(where: str, force: bool | None) -> str:
    """Return what an interrupted user may want to know: what is kept, and how to go on."""
    without = " without --force" if force else ""
    if where:
        return f"interrupted: {where}; the same command{without} goes on from there."
    return f"interrupted: whatever was saved is kept; give the same command{without} again."


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: what a signal does before a command listens to it (see `stopping`).

    Raising an exception instead could hit the import of a library, which then fails in odd ways.
    """
    complain(describe_stop("", None))
    os._exit(SIGNALLED + number)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from adrbench import __version__

        typer.echo(f"adrbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "attack": attack,
    "report": report,
    "list": list_,
}
for name, command in COMMANDS.items():
    app.command(name=name)(exits(command))


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handled = select_unignored()
    for number in handled:
        signal.signal(number, leave)
    try:
        app(prog_name="adrbench")
    except SystemExit as ending:
        if is_launched() and "torch" in sys.modules:
            # Threads that connect processes, taken down with the interpreter, abort it now
            # and then (torch 2.15, gloo).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code if isinstance(ending.code, int) else 0)
        raise
    finally:
        # What it came to is decided and said; the rest is Python's own end.
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
