"""The settings of a training run with their sources, as one line and as a table."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from adrbench.config.declare import Setting
from adrbench.config.presets import Source
from adrbench.config.resolve import GIVEN
from adrbench.config.settings import TrainConfig

#: The general settings that introduce a run, beside those of its method and those that were given.
INTRODUCED = ("eps", "steps", "epochs", "batch_size", "lr", "precision", "compile")
#: The width of the table.
WIDTH = 80


def introduce(config: TrainConfig, sources: Mapping[str, Source]) -> str:
    """Return the most important settings of a run on one line, grouped by source.

    Of a source such as "ours for digits", only "ours" is shown.
    """
    own, declared = config.parsed_method().settings, config.declared()
    shown = [
        name
        for name, source in sources.items()
        if name in INTRODUCED or name in own or source == GIVEN
    ]
    by_source: dict[str, dict[str, Any]] = {GIVEN.name: {}}
    for name in shown:
        source = sources[name].name.partition(" for ")[0]
        by_source.setdefault(source, {})[name] = config.values()[name]
    return "; ".join(
        f"{source}: {', '.join(_spell_in_words(values, declared))}"
        for source, values in by_source.items()
        if values
    )


def tabulate(rows: Iterable[tuple[str, str, Source]]) -> list[str]:
    """Return a table of settings, each with its value and source, and an explanation of sources."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]  # type: ignore[arg-type]
    lines = [
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source.name}" for name, value, source in rows
    ]
    explained = {source: None for _, _, source in rows if source.text != source.name}
    if explained:
        lines.append("")
    for source in explained:
        lines += textwrap.wrap(f"{source.name}: {source.text}", WIDTH, subsequent_indent="  ")
    return lines


def list_settings(
    config: TrainConfig, sources: Mapping[str, Source]
) -> list[tuple[str, str, Source]]:
    """Return a row for `tabulate` per setting of a run."""
    declared, values = config.declared(), config.values()
    return [
        (declared[name].flag, _spell(declared[name], values[name]), source)
        for name, source in sources.items()
    ]


def _spell(declared: Setting, value: Any) -> str:
    """Return a value as written on the command line, or its meaning if it is None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return declared.show_default or "none"
    return declared.spell_value(value) or "none"


def _spell_in_words(values: Mapping[str, Any], declared: Mapping[str, Setting]) -> list[str]:
    """Return each setting with its value; the two ends of an annealed one as "X 2.5 to 2"."""
    texts = {name: _spell(declared[name], value) for name, value in values.items()}
    parts = []
    for name, text in texts.items():
        stem, _, end = name.rpartition("_")
        pair = [other for other in texts if other in (f"{stem}_low", f"{stem}_high")]
        if end in ("low", "high") and len(pair) == 2:
            if name == pair[0]:
                parts.append(f"{stem} {text} to {texts[pair[1]]}")
        else:
            parts.append(f"{name} {text}")
    return [part.replace("_", " ") for part in parts]
