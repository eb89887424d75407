"""What runs were trained with, where their training records tell, and in what rows differ by it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from adrbench.config.components import component_settings
from adrbench.config.declare import flag
from adrbench.config.method import parse_method
from adrbench.config.settings import TrainConfig, train_settings
from adrbench.errors import AdrbenchError
from adrbench.report.grouping import Line
from adrbench.results.records import TrainRecord

#: By the fingerprint that attack records carry, which leaves out the seed.
Settings = Mapping[str, TrainConfig]

#: Which run it is, rather than how it trains.
IDENTITY = ("dataset", "method", "seed", "preset")


def read_settings(trained: Iterable[TrainRecord]) -> Settings:
    """Return the settings of all runs by their fingerprint, of those that can be read."""
    found = {}
    for record in trained:
        config = read_config(record)
        if config is not None:
            found[fingerprint(config, record)] = config
    return found


def read_config(record: TrainRecord) -> TrainConfig | None:
    """Return what a run was trained with; None for what this version does not know."""
    try:
        return TrainConfig.from_json(record.config)
    except (ValueError, AdrbenchError):
        return None


def fingerprint(config: TrainConfig, record: TrainRecord) -> str:
    """Return the fingerprint that attack records of the run carry."""
    return config.sha256(record.sessions[-1].processes if record.sessions else 1)


def around_method(config: TrainConfig, **changes: Any) -> tuple[tuple[str, Any], ...]:
    """Return the settings that two methods have to share to be compared: all but their own."""
    values = config.values() | changes
    apart = (*IDENTITY, *component_settings())
    return tuple((name, value) for name, value in values.items() if name not in apart)


def settings_marks(
    lines: Iterable[Line], settings: Settings
) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Return a mark for each network, method and fingerprint, where several are of one method.

    It gives the settings that differ, spelt as flags of `adrbench train`, or without training
    records, for rows that nothing else tells apart, where they stand.
    """
    by_method: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        by_method.setdefault((line.subject.arch, line.subject.method), []).append(line)
    marks: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for (arch, method), rows in by_method.items():
        fingerprints = {row.subject.training for row in rows} - {""}
        known = {sha256: settings[sha256] for sha256 in fingerprints if sha256 in settings}
        is_known = len(known) == len(fingerprints)
        found = describe_differences(known, _of_others(method)) if is_known else _places(rows)
        marks |= {(arch, method, sha256): mark for sha256, mark in found.items()}
    return marks


def settings_key(line: Line) -> tuple[str, str, str]:
    """Return where `settings_marks` has the mark of `line`."""
    return (line.subject.arch, line.subject.method, line.subject.training)


def _of_others(label: str) -> tuple[str, ...]:
    """Return the settings that a row's method does not use, such as the average's of a student."""
    try:
        used = parse_method(label).settings
    except AdrbenchError:
        return ()
    return tuple(name for name in component_settings() if name not in used)


def describe_differences(
    known: Settings, ignored: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Return a mark for each of several settings, with what is not the same in all."""
    apart = (*IDENTITY, *ignored)
    every = dict.fromkeys(name for config in known.values() for name in config.values())
    names = [name for name in every if name not in apart and _varies(name, known.values())]
    return {
        sha256: ("settings: " + ", ".join(_spell(name, config) for name in names),)
        for sha256, config in known.items()
        if names
    }


def _varies(name: str, configs: Collection[TrainConfig]) -> bool:
    return len({config.values().get(name) for config in configs}) > 1


def _spell(name: str, config: TrainConfig) -> str:
    value = config.values().get(name)
    declared = train_settings().get(name)
    return declared.spell(value) if declared else f"{flag(name)} {value}"


def _places(rows: Iterable[Line]) -> dict[str, tuple[str, ...]]:
    """Return where settings stand, for rows of one label with several."""
    runs: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        of_label = runs.setdefault(row.subject.label, {})
        of_label.setdefault(row.subject.training, set()).update(row.runs)
    return {
        sha256: (f"settings of {', '.join(sorted(names))}, in its config.json",)
        for of_label in runs.values()
        if len(of_label) > 1
        for sha256, names in of_label.items()
        if sha256
    }
