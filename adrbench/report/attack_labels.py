"""Labels of attacks in tables: the suite's name and the settings in which its runs differ.

Attacks that a label cannot tell apart, such as two versions of a user's code, are numbered from the
oldest to the newest, and a note says in what they differ.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from adrbench.config.declare import format_eps
from adrbench.report.grouping import Attack, SeedGroup

#: The order of suites: single attacks, weak before strong, then the ensembles.
SUITES = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "other")
ENSEMBLES = ("autoattack-rand", "autoattack", "autoattack-plus")
#: Keys of fingerprints of code, and the form of all fingerprints.
CODE = frozenset(("code", "bytecode"))
FINGERPRINT = re.compile("[0-9a-f]{16,}")
#: The keys of the radius of an attack, and of its step, which by default is a fraction of eps.
EPS, STEP = "eps", "alpha"
#: A label shows at most this many settings, and values of at most this many characters.
MOST_SETTINGS, MOST_CHARACTERS = 3, 24
#: Values in a note have at most this many characters.
MOST_IN_NOTE = 60

#: A parameter: the keys that lead to it, such as ("noise", "steps").
_Path = tuple[str, ...]
_Parameters = Mapping[_Path, Any]


@dataclass(frozen=True, kw_only=True)
class AttackLabels:
    """A label for each attack, in table order, and the notes on those that are numbered."""

    labels: Mapping[Attack, str]
    notes: tuple[str, ...] = ()


def label_attacks(groups: Iterable[SeedGroup]) -> AttackLabels:
    """Return the labels of the attacks in `groups`."""
    dates: dict[Attack, str] = {}
    for group in groups:
        for attack in group.attacks:
            dates[attack] = max(dates.get(attack, ""), newest_date(group, attack))
    return label_dated(dates)


def newest_date(group: SeedGroup, attack: Attack) -> str:
    """Return when the newest evaluation of `group` by `attack` was made."""
    return max(record.created for record in group.records[attack].values())


def label_dated(dates: Mapping[Attack, str]) -> AttackLabels:
    """Return the labels of attacks, given the date (ISO 8601) of the newest evaluation of each.

    The label of a suite is its name. Where a suite was run with several sets of parameters, labels
    add the plain settings that differ, as in "noise (steps 10)", with all digits if they would be
    equal otherwise. Labels that are still equal are numbered by date.
    """
    by_suite: dict[str, list[Attack]] = {}
    for attack in sorted(dates, key=lambda attack: (dates[attack], attack.parameters)):
        by_suite.setdefault(attack.suite, []).append(attack)
    named = [_label_suite(suite, by_suite[suite]) for suite in sorted(by_suite, key=_suite_order)]
    return AttackLabels(
        labels={attack: label for one in named for attack, label in one.labels.items()},
        notes=tuple(note for one in named for note in one.notes),
    )


def _label_suite(suite: str, attacks: Sequence[Attack]) -> AttackLabels:
    """Return the labels of the attacks of one suite, which are ordered from the oldest."""
    parameters = {attack: _read(attack) for attack in attacks}
    different = _differing(parameters.values())
    plain = [path for path in different if all(map(_is_plain, _values(parameters, path)))]
    shown = plain[:MOST_SETTINGS]
    settings = {attack: [parameters[attack].get(path) for path in shown] for attack in attacks}
    in_order = sorted(attacks, key=lambda attack: [*map(_value_order, settings[attack])])
    labels = _number(_label(suite, _shorten(shown), {one: settings[one] for one in in_order}))
    hidden = [path for path in different if path not in shown]
    newest = labels[attacks[-1]]
    values = {path: _values(parameters, path) for path in hidden}
    notes = (_describe_hidden([labels[one] for one in attacks], values, newest),) if hidden else ()
    return AttackLabels(labels=labels, notes=notes)


@cache
def at_relative_step(attack: Attack, eps: float) -> Attack:
    """Return `attack` without the radius `eps`, and with its step, if any, as a multiple of it.

    An attack that is run in the same way at several radii has then the same parameters at all.
    """
    parameters = _relative(json.loads(attack.parameters), eps)
    return attack._replace(parameters=json.dumps(parameters, sort_keys=True))


def _relative(value: Any, eps: float) -> Any:
    if isinstance(value, list):
        return [_relative(one, eps) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: one for name, one in value.items() if name != EPS or one != eps}
    return {
        name: f"{one / eps:.4g} eps"
        if name == STEP and isinstance(one, float) and eps
        else _relative(one, eps)
        for name, one in kept.items()
    }


def _label(
    suite: str, names: Sequence[str], settings: Mapping[Attack, Sequence[Any]]
) -> dict[Attack, str]:
    """Return the suite's name with the settings of each attack, rounded unless that is unclear."""
    rounded = {one: _spell(suite, names, own, _format) for one, own in settings.items()}
    exact = {one: _spell(suite, names, own, json.dumps) for one, own in settings.items()}
    spellings: dict[str, set[str]] = {}
    for attack, label in rounded.items():
        spellings.setdefault(label, set()).add(exact[attack])
    return {
        attack: exact[attack] if len(spellings[label]) > 1 else label
        for attack, label in rounded.items()
    }


def _spell(
    suite: str, names: Sequence[str], values: Sequence[Any], format_value: Callable[[Any], str]
) -> str:
    pairs = zip(names, values, strict=True)
    settings = ", ".join(f"{name} {format_value(value)}" for name, value in pairs)
    return f"{suite} ({settings})" if settings else suite


def _format(value: object) -> str:
    if isinstance(value, float):
        return format_eps(value)
    return "-" if value is None else str(value)


def _number(labels: Mapping[Attack, str]) -> dict[Attack, str]:
    """Return the labels, equal ones next to each other and numbered in their order."""
    same: dict[str, list[Attack]] = {}
    for attack, label in labels.items():
        same.setdefault(label, []).append(attack)
    return {
        attack: label if number == 1 else f"{label} ({number})"
        for label, attacks in same.items()
        for number, attack in enumerate(attacks, start=1)
    }


def _describe_hidden(
    labels: Sequence[str], hidden: Mapping[_Path, Sequence[Any]], newest: str
) -> str:
    """Return a note on what differs between attacks without being in their labels.

    `hidden` are the values of each parameter, in the order of the `labels`.
    """
    changed_code = [path for path in hidden if not CODE.isdisjoint(path)]
    # A fingerprint stands in the place of what it identifies.
    others = {
        path[:-1] if path[-1] == "sha256" and path[1:] else path: values
        for path, values in hidden.items()
        if path not in changed_code
    }
    what = ["code"] if changed_code else []
    for name, values in zip(_shorten([*others]), others.values(), strict=True):
        shown = [json.dumps(value) for value in values]
        is_legible = not any(FINGERPRINT.search(value) for value in shown)
        cut = [f"{one[: MOST_IN_NOTE - 3]}..." if len(one) > MOST_IN_NOTE else one for one in shown]
        what.append(f"{name} ({'; '.join(cut)})" if is_legible else name)
    return f"{', '.join(labels)}: they differ in {join_words(what)}; the newest is {newest}."


def join_words(words: Sequence[str]) -> str:
    """Return words as a list, such as "code, steps and loss"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _read(attack: Attack) -> _Parameters:
    """Return the parameters of an attack by path; of a single stage, those of the stage."""
    parameters = json.loads(attack.parameters)
    if len(parameters) == 1:
        ((name, stage),) = parameters.items()
        if isinstance(stage, dict):
            parameters = {"attack": name, **stage}
    return _flatten(parameters)


def _flatten(value: Any, path: _Path = ()) -> dict[_Path, Any]:
    """Return the parameters by path; a list is one value unless it contains dictionaries."""
    items: Iterator[tuple[str, Any]]
    if isinstance(value, dict):
        items = ((str(name), one) for name, one in value.items())
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        items = ((str(position), one) for position, one in enumerate(value, start=1))
    else:
        return {path: value}
    return {at: leaf for name, one in items for at, leaf in _flatten(one, (*path, name)).items()}


def _differing(parameters: Iterable[_Parameters]) -> list[_Path]:
    """Return the paths of the parameters that are not the same everywhere, in order."""
    every = list(parameters)
    return [
        path
        for path in sorted({path for one in every for path in one})
        if len({json.dumps(one.get(path)) for one in every}) > 1
    ]


def _values(parameters: Mapping[Attack, _Parameters], path: _Path) -> list[Any]:
    return [own.get(path) for own in parameters.values()]


def _is_plain(value: object) -> bool:
    """Return whether a label can show a value: a short one that is no fingerprint."""
    is_fingerprint = isinstance(value, str) and FINGERPRINT.fullmatch(value)
    return not is_fingerprint and len(_format(value)) <= MOST_CHARACTERS


def _value_order(value: object) -> tuple[bool, float, str]:
    """Return the sort key of a setting: numbers by size, then others by their text."""
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if isinstance(value, int | float) else 0, _format(value))


def _shorten(paths: Sequence[_Path]) -> list[str]:
    """Return a name for each path: its last key, or the whole path where others end alike."""
    ends = Counter(path[-1] for path in paths)
    return [path[-1] if ends[path[-1]] == 1 else " ".join(path) for path in paths]


def _suite_order(suite: str) -> tuple[int, int, str]:
    if suite in ENSEMBLES:
        return (len(SUITES) + ENSEMBLES.index(suite), 0, suite)
    family, _, steps = suite.partition("-")
    if family == "pgd":
        # By length, then by digits: the suffix of a third-party suite need not be a number.
        return (SUITES.index("pgd"), len(steps), suite)
    return (SUITES.index(suite if suite in SUITES else "other"), 0, suite)
