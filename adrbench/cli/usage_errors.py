"""Invalid command lines as one `error:` line with the next action, like all other errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from adrbench.cli.notes import print_error
from adrbench.errors import UsageError, unknown_name

#: What Typer raises for a wrong command line. Its releases define it in different places.
TyperUsageError: Any = typer.BadParameter.__bases__[0]
#: What Typer raises to print the help, where there are no arguments.
HELP = "NoArgsIsHelpError"
#: The beginning of the name of a failed conversion -> what the option takes.
TAKES = {"int": "a whole number", "float": "a number"}


class CommandGroup(TyperGroup):
    """The group of commands, with its own report of usage errors."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options of the program itself."""
        with explaining_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest of the command line, and run the command."""
        with explaining_usage_errors(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called; raises Typer's usage error where there is none."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise TyperUsageError(str(unknown_name("command", args[0], self.commands)), ctx)
        return super().resolve_command(ctx, args)


@contextmanager
def explaining_usage_errors(context: Any = None) -> Iterator[None]:
    """Print a Typer usage error like our own, and exit with the same code.

    `context` is the Typer context of the program whose command is being parsed.
    """
    try:
        yield
    except TyperUsageError as error:
        if type(error).__name__ == HELP:
            raise
        # Typer leaves out the context of some errors of a command.
        names = error.ctx.command_path.split()[1:] if error.ctx else [context.invoked_subcommand]
        path = " ".join(["adrbench", *names])
        message = describe(error)
        see = " See" if message.endswith("?") else "; see"
        print_error(f"{message.removesuffix('.')}{see} `{path} --help`.")
        raise typer.Exit(UsageError.exit_code) from None


def describe(error: Any) -> str:
    """Return what is wrong, and what is allowed."""
    if error.ctx and hasattr(error, "possibilities"):
        options = [name for one in error.ctx.command.params for name in one.opts if name[0] == "-"]
        return str(unknown_name("option", error.option_name, options))
    if text := describe_value(error):
        return text
    message: str = error.format_message()
    return message if message[0].islower() else (message[0].lower() + message[1:]).replace("'", "")


def describe_value(error: Any) -> str:
    """Return the message for an option's value of another type, "" for another error."""
    read_causes = getattr(error.__cause__, "errors", None)
    cause = read_causes()[0] if read_causes else {}
    takes = TAKES.get(str(cause.get("type", "")).partition("_")[0])
    if takes is None or not error.param.opts:
        return ""
    return f"{error.param.opts[0]} is {cause['input']!r}: give {takes}"
