"""Method components of installed plugins, in addition to the built-in ones.

Plugins are imported when a token is looked up that is not built in, and when their settings are
needed. An unusable plugin is ignored; it is an error only if its token is used.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from adrbench.config.components import (
    COMPONENTS,
    DEFAULTS,
    SLOTS,
    Component,
    component_settings,
)
from adrbench.config.declare import KINDS, Setting, settings_of
from adrbench.errors import AdrbenchError, first_line, unknown_name
from adrbench.registry import Plugin, find_plugin, is_import_path, plugin_names

#: What a token consists of; method specs are in lower case, and `+` joins tokens.
TOKEN = re.compile(r"[a-z][a-z0-9_.-]*")
#: Types of the fields of a component.
FIELD_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("token", "slot", "summary", "builder", "decay_setting"), str),
    **dict.fromkeys(("implies", "symbols"), Mapping),
    "settings": type,
    "needs": tuple,
}
#: Parameters of `train`, on the command line or in Python, whose names no setting may have.
TRAIN_PARAMETERS = frozenset(
    {
        *("dataset", "method", "arch", "activation", "preset", "method_settings"),
        *("name", "out", "results", "data_dir", "save_minutes", "device", "force", "dry_run"),
        *("progress", "callbacks", "tensorboard", "given", "context", "debug", "help", "version"),
    }
)


@dataclass(frozen=True, kw_only=True)
class PluginComponents:
    """The components of plugins by token; `problems` has a sentence for each unusable token."""

    components: Mapping[str, Component]
    problems: Mapping[str, str]

    def settings(self) -> Mapping[str, Setting]:
        """Return the settings of all these components by name."""
        return {
            name: one
            for component in self.components.values()
            for name, one in settings_of(component.settings).items()
        }


def component_tokens() -> list[str]:
    """Return every token, the built-in ones first; nothing is imported."""
    return list(dict.fromkeys([*COMPONENTS, *plugin_names("methods")]))


def find_component(token: str) -> Component:
    """Return the component called `token`.

    Raises:
        UsageError: when there is none.
        AdrbenchError: when its plugin cannot be used.

    """
    if token in COMPONENTS:
        return COMPONENTS[token]
    if token not in component_tokens():
        raise unknown_name("method token", token, component_tokens())
    loaded = load_plugin_components()
    if token in loaded.problems:
        raise AdrbenchError(loaded.problems[token])
    return loaded.components[token]


def foreign_tokens(method: str) -> list[str]:
    """Return the tokens in the spelling of a method that are not built in."""
    return [token for token in method.split("+") if token not in COMPONENTS]


def position(token: str) -> int:
    """Return the position of a token that exists among all tokens."""
    is_built_in = token in COMPONENTS  # most are, and plugins take time to look up
    return list(COMPONENTS if is_built_in else component_tokens()).index(token)


def all_component_settings() -> Mapping[str, Setting]:
    """Return the settings of all components by name, plugins' included."""
    return {**component_settings(), **load_plugin_components().settings()}


@cache
def load_plugin_components() -> PluginComponents:
    """Import the components of all plugins, and check them."""
    components: dict[str, Component] = {}
    problems: dict[str, str] = {}
    loaded = PluginComponents(components=components, problems=problems)
    for token in plugin_names("methods"):
        try:
            components[token] = _load(token, loaded.settings())
        except AdrbenchError as error:
            problems[token] = str(error)
    return loaded


def _load(token: str, taken: Mapping[str, Setting]) -> Component:
    """Return the component of a plugin, whose settings must not have names that are `taken`."""
    plugin = find_plugin("methods", token)
    assert plugin is not None, token
    component = plugin.load()
    fault = next(_find_faults(component, plugin, taken), None)
    if fault:
        raise AdrbenchError(f"the methods plugin {token!r} of {plugin} cannot be used: {fault}.")
    loaded: Component = component
    return loaded


def _find_faults(component: object, plugin: Plugin, taken: Mapping[str, Setting]) -> Iterator[str]:
    """Yield what is wrong with what a plugin registers; each check relies on those before it."""
    if not isinstance(component, Component):
        yield f"{plugin.path} is a {type(component).__name__} and must be an adrbench.Component"
        return
    for name, expected in FIELD_TYPES.items():
        value = getattr(component, name)
        if not isinstance(value, expected):
            yield f"its {name} is {value!r:.40} and must be a {expected.__name__.lower()}"
    if component.token != plugin.name:
        yield f"its token is {component.token!r}, but its entry point is called {plugin.name!r}"
    if component.token in COMPONENTS:
        yield f"{component.token!r} is the token of a built-in component"
    if not TOKEN.fullmatch(component.token):
        yield "a token consists of lower-case letters, digits, dots, dashes and underscores"
    if component.slot not in SLOTS:
        yield f"its slot is {component.slot!r}, which must be one of {', '.join(SLOTS)}"
    for slot in component.needs:
        if slot not in DEFAULTS:
            yield f"it needs the slot {slot!r}, but can need only {' or '.join(DEFAULTS)}"
    if not is_import_path(component.builder):
        yield f"its builder is {component.builder!r}, which must be package.module:attribute"
    yield from _find_faults_in_settings(component, taken)


def _find_faults_in_settings(component: Component, taken: Mapping[str, Setting]) -> Iterator[str]:
    from adrbench.config.settings import TrainConfig

    if not dataclasses.is_dataclass(component.settings):
        yield "its settings are not a dataclass"
    try:
        declared = settings_of(component.settings)
    except (NameError, TypeError) as error:
        yield f"the types of its settings cannot be resolved ({first_line(error)})"
        return
    general = settings_of(TrainConfig)
    for field in dataclasses.fields(component.settings):
        if field.name not in declared:
            yield f"its field {field.name!r} is not made with adrbench.setting"
        if field.name in general or field.name in TRAIN_PARAMETERS:
            yield f"its setting {field.name!r} has the name of a flag that every run has"
        if field.name in component_settings() or field.name in taken:
            yield f"its setting {field.name!r} has the name of another component's"
        yield from _find_faults_in_default(field, declared[field.name])
    for name, value in component.implies.items():
        if name not in general:
            yield f"it implies {name}, which is not a setting of every run"
        if fault := _describe_bad_value(general[name], value):
            yield f"the {name} that it implies is not allowed ({fault})"
    if component.decay_setting and component.decay_setting not in declared:
        yield f"its decay_setting {component.decay_setting!r} is not one of its settings"


def _find_faults_in_default(field: "dataclasses.Field[Any]", setting: Setting) -> Iterator[str]:
    if setting.kind not in KINDS:
        yield f"its setting {field.name!r} is not a bool, int, float, str, Literal or tuple"
    if field.default is dataclasses.MISSING:
        yield f"its setting {field.name!r} has no default"
    if fault := _describe_bad_value(setting, field.default):
        yield f"the default of its setting {field.name!r} is not allowed ({fault})"


def _describe_bad_value(setting: Setting, value: object) -> str | None:
    """Return why a setting cannot have a value, None if it can."""
    if value is None and setting.is_optional:
        return None
    try:
        setting.check_type(value)
        setting.check(value)
    except (TypeError, ValueError) as error:
        return first_line(error)
    return None
