"""Command-line flags generated from declared settings."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from adrbench.config.declare import Setting

DataDir = Annotated[
    Path, typer.Option(help="Directory of CIFAR (downloaded if missing) and TinyImageNet.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:K.")]

#: The parameter of a command that is replaced by the flags of its settings.
GIVEN = "given"
#: The parameter of a command to which Typer passes its context.
CONTEXT = "context"


def takes_settings(
    settings: Mapping[str, Setting],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces a command's parameter `given` by a flag per setting.

    The command is called with `given`, which maps each flag on the command line to the parsed
    value. Ranges are checked where the values are used.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            is_given = parameter.name == GIVEN
            parameters += map(_make_parameter, settings.values()) if is_given else [parameter]
        takes_context = CONTEXT in signature.parameters
        if not takes_context:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(CONTEXT, kind, annotation=typer.Context))

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            context = values[CONTEXT] if takes_context else values.pop(CONTEXT)
            given = {}
            for name, one in settings.items():
                value = values.pop(name)
                if is_on_command_line(context, name):
                    given[name] = one.parse(value) if isinstance(value, str) else value
            command(**values, given=given)

        wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def is_on_command_line(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given, even if with the value that it has by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _make_parameter(setting: Setting) -> inspect.Parameter:
    """Return the command parameter that Typer turns into the flag of `setting`."""
    is_text = setting.in_pixels or setting.kind is tuple
    kind = str if is_text else setting.kind
    default = setting.default
    if default is not None and is_text:
        default = setting.spell_value(default)
    shown: bool | str = default is not None or setting.show_default or "preset"
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=Annotated[
            kind | None if default is None else kind,
            typer.Option(help=setting.help, show_default=shown),
        ],
    )
