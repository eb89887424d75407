"""The `adrbench` program: its commands.

Results go to stdout, everything else to stderr.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from adrbench.cli.attack import attack
from adrbench.cli.exit_codes import describe_os_error, exit_on_signal, handle_errors
from adrbench.cli.inspect import inspect
from adrbench.cli.list import list_
from adrbench.cli.notes import print_error
from adrbench.cli.options import takes_settings
from adrbench.cli.report import report
from adrbench.cli.streams import discard_output, prepare_streams
from adrbench.cli.train import train
from adrbench.cli.usage_errors import CommandGroup
from adrbench.config.declare import Setting
from adrbench.config.settings import train_settings
from adrbench.errors import AdrbenchError
from adrbench.registry import list_plugins
from adrbench.runtime.signals import select_unignored
from adrbench.runtime.torchrun import is_launched


class Program(CommandGroup):
    """The program, which adds the flags of plugins to `train` when that command is invoked.

    Creating them imports the plugins, which `--help` and the other commands do not need.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and the arguments of the invoked command."""
        name, command, rest = super().resolve_command(ctx, args)
        if name == "train" and list_plugins("methods"):
            from adrbench.config.component_plugins import load_plugin_components

            command = make_train_command(load_plugin_components().settings())
        return name, command, rest


app = typer.Typer(
    cls=Program,
    help="Train adversarially robust image classifiers with ADR and its baselines, attack them "
    "with PGD and AutoAttack, and report the results alongside those of RobustBench.",
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
    "train": takes_settings(train_settings())(train),
    "attack": attack,
    "inspect": inspect,
    "report": report,
    "list": list_,
}
for name, command in COMMANDS.items():
    app.command(name=name)(handle_errors(command))


def make_train_command(added: Mapping[str, Setting]) -> Any:
    """Return `train`, as Typer makes it, with flags for `added` settings."""
    program = typer.Typer(add_completion=False, rich_markup_mode=None)
    command = takes_settings({**train_settings(), **added})(train)
    program.command(name="train")(handle_errors(command))
    return typer.main.get_command(program)


def run_app() -> int:
    """Run the command that the command line names; return the exit code.

    All output is written, or the reason why it cannot be.
    """
    try:
        try:
            app(prog_name="adrbench")
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else 0
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        if not isinstance(error, BrokenPipeError):
            print_error(describe_os_error(error))
        code = AdrbenchError.exit_code
    return code


def main() -> None:
    """Run the program."""
    prepare_streams()
    handled = select_unignored()
    for number in handled:
        signal.signal(number, exit_on_signal)
    try:
        code = run_app()
        if is_launched() and "torch" in sys.modules:
            # Closing gloo's connections at interpreter shutdown occasionally aborts the process
            # (torch 2.15).
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
    finally:
        # The exit code is decided and the output printed; a signal must not change either.
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
