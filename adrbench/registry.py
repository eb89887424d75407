"""Objects looked up by name: those of installed plugins and those at import paths.

A plugin is a distribution with entry points in the groups `adrbench.architectures`,
`adrbench.suites`, `adrbench.datasets` and `adrbench.methods`. An object is imported only when its
name is requested.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Any, Literal

from adrbench.errors import AdrbenchError, UsageError, is_out_of_memory, one_line, unknown_name

Kind = Literal["architectures", "suites", "datasets", "methods"]
#: The kinds in messages about one name.
SINGULAR: dict[Kind, str] = {
    "architectures": "architecture",
    "suites": "suite",
    "datasets": "dataset",
    "methods": "method token",
}

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_IMPORT_PATH = re.compile(rf"({_DOTTED}):({_DOTTED})")


class UserCodeError(AdrbenchError):
    """User code that raised an exception or returned an invalid value.

    `__cause__` is the exception of that code, if it raised one.
    """


class ImportPathError(UserCodeError):
    """An import path that does not exist, or whose code raised an exception."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A name that an installed distribution registers, and its import path."""

    kind: Kind
    name: str
    path: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def load(self) -> Any:
        """Import and return the registered object; ImportPathError where that fails."""
        try:
            found = import_object(self.path)
        except AdrbenchError as error:
            raise ImportPathError(
                f"the {self.kind} plugin {self.name!r} of {self} cannot be loaded: {error}"
            ) from (error.__cause__ or error)
        _loaded.add(self)
        return found


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The object that a name refers to, and the plugin that registers the name, if one does."""

    value: Any
    plugin: Plugin | None


#: The plugins whose objects were loaded in this process, which records name.
_loaded: set[Plugin] = set()


@cache
def _registered(kind: Kind) -> Mapping[str, tuple[Plugin, ...]]:
    found: dict[str, list[Plugin]] = defaultdict(list)
    for point in metadata.entry_points(group=f"adrbench.{kind}"):
        plugin = Plugin(
            kind=kind,
            name=point.name,
            path=point.value,
            distribution=point.dist.name if point.dist else "an unknown distribution",
            version=point.dist.version if point.dist else "",
        )
        if plugin not in found[point.name]:
            found[point.name].append(plugin)
    return {name: tuple(found[name]) for name in sorted(found)}


def find_plugin(kind: Kind, name: str) -> Plugin | None:
    """Return the plugin that registers `name`, None if there is none.

    Raises:
        AdrbenchError: when several distributions register it.

    """
    candidates = _registered(kind).get(name, ())
    if len(candidates) > 1:
        rivals = " and ".join(map(str, candidates))
        raise AdrbenchError(
            f"{rivals} both register {name!r} in adrbench.{kind}: uninstall one of them."
        )
    return candidates[0] if candidates else None


def list_plugins(kind: Kind) -> list[Plugin]:
    """Return every registered plugin of a kind, sorted by name; nothing is imported."""
    return [plugin for candidates in _registered(kind).values() for plugin in candidates]


def plugin_names(kind: Kind) -> list[str]:
    """Return the names that plugins of a kind register, sorted; nothing is imported."""
    return list(_registered(kind))


def is_foreign(kind: Kind, name: str) -> bool:
    """Return whether `name` is an import path or the name of a plugin; nothing is imported.

    Raises:
        AdrbenchError: when several distributions register it.

    """
    return is_import_path(name) or find_plugin(kind, name) is not None


def check_foreign(kind: Kind, name: str, known: Iterable[str]) -> None:
    """Raise UsageError, with the names like it, unless `name` is foreign; nothing is imported.

    `known` are names or descriptions of what is accepted in addition to plugins.
    """
    if not is_foreign(kind, name):
        if name.isidentifier() and os.path.exists(f"{name}.py"):
            raise UsageError(
                f"unknown {SINGULAR[kind]} {name!r}: for an object of {name}.py, write {name}:NAME."
            )
        raise unknown_name(SINGULAR[kind], name, [*known, *plugin_names(kind)])


def resolve(kind: Kind, name: str) -> Resolved:
    """Return the object that a foreign name refers to: that of a plugin, else at an import path.

    Raises:
        UsageError: when `name` is neither.
        ImportPathError: when its module or attribute does not exist, or importing raises.
        AdrbenchError: when several distributions register it.

    """
    plugin = find_plugin(kind, name)
    return Resolved(value=plugin.load() if plugin else load_import_path(name), plugin=plugin)


def describe_plugins(used: Mapping[Kind, Iterable[str]]) -> dict[str, str]:
    """Return the plugins behind names that are `used`, such as {"suites:NAME": "package 0.1"}.

    Names for which no plugin was loaded, such as built-in ones, are omitted.
    """
    return {
        f"{plugin.kind}:{plugin.name}": str(plugin)
        for kind, names in used.items()
        for name in names
        for plugin in _registered(kind).get(name, ())
        if plugin in _loaded
    }


def spell_for_files(name: str) -> str:
    """Replace characters that file names should not contain, such as colons, by dashes."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")


def is_import_path(text: str) -> bool:
    """Return whether `text` has the form `package.module:attribute`."""
    return _IMPORT_PATH.fullmatch(text) is not None


def load_import_path(text: str) -> Any:
    """Return the object at `package.module:attribute`, the working directory being importable.

    That directory stays on `sys.path`, as it is with `python -m`, because functions of the module
    may import others when they are called.

    Raises:
        UsageError: when `text` has another form.
        ImportPathError: when the module or the attribute does not exist, or importing raises.

    """
    if not is_import_path(text):
        raise UsageError(f"{text!r} is not an import path: write package.module:attribute.")
    module_name, _, attribute = text.partition(":")
    if module_name.endswith(".py"):
        raise UsageError(f"{text} names a file: write {module_name[:-3]}:{attribute}.")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return import_object(text)


def import_object(path: str) -> Any:
    """Return the object at `package.module:attribute`; ImportPathError where that fails."""
    module_name, _, attribute = path.partition(":")
    with calling_user_code(
        lambda raised: f"importing {module_name} for {path} {raised}.", ImportPathError
    ):
        found: Any = _import_module(module_name, path)
        for name in filter(None, attribute.split(".")):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                raise ImportPathError(_describe_missing(path, module_name, found, name)) from error
    return found


def _import_module(name: str, path: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not _is_part(error.name, name):
            raise
        raise ImportPathError(
            f"there is no module {error.name!r} for {path}: check the spelling, or run the "
            "command in the directory that contains it."
        ) from error


def _is_part(missing: str | None, module_name: str) -> bool:
    """Return whether `missing` is the module itself or one of the packages around it."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _describe_missing(path: str, module_name: str, found: object, name: str) -> str:
    similar = get_close_matches(name, [one for one in dir(found) if not one.startswith("_")], n=3)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "check the spelling."
    return f"{module_name} has no attribute {name!r} for {path}: {hint}"


@contextmanager
def calling_user_code(
    describe: Callable[[str], str], error_type: type[UserCodeError] = UserCodeError
) -> Iterator[None]:
    """Turn an exception of user code, which may raise anything, into an error of one sentence.

    `describe` gets what happened, such as "raised ValueError (no such layer)", and returns the
    sentence. Out-of-memory errors and our own pass unchanged. A call of `sys.exit` is an error too,
    since it would end the program silently.

    Raises:
        UserCodeError: of type `error_type`, caused by the exception.

    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, AdrbenchError) or is_out_of_memory(error):
            raise
        raise error_type(describe(f"raised {describe_exception(error)}")) from error


def describe_exception(error: BaseException) -> str:
    """Return the type and text of an exception of the user's code, for use in a sentence."""
    return f"{type(error).__name__} ({one_line(error).rstrip('.')})"
