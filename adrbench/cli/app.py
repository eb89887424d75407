"""The `adrbench` program: its commands.

Results go to stdout, everything else to stderr.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from adrbench.cli.attack import attack
from adrbench.cli.exit_codes import exit_on_signal, handle_errors
from adrbench.cli.list import list_
from adrbench.cli.report import report
from adrbench.cli.train import train
from adrbench.cli.usage_errors import Program
from adrbench.runtime.signals import select_unignored
from adrbench.runtime.torchrun import is_launched

app = typer.Typer(
    cls=Program,
    help="Train adversarially robust image classifiers with ADR and its baselines, attack them "
    "with PGD and AutoAttack, and report the results beside RobustBench's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
