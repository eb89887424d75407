"""Frozen dataclasses to and from plain JSON values; msgspec checks every type on the way in.

Configurations, records and checkpoint headers all pass through here, so a file that was edited by
hand or written by other software is refused with the name of the field that is wrong. All strings
that are read are printable.
"""

import dataclasses
import re
import reprlib
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar

import msgspec

from adrbench.printable import printable

T = TypeVar("T")

#: Larger integers would overflow wherever they meet a float or an array.
INT64 = range(-(2**63), 2**63)
#: Deeper values could exhaust the stack of code that walks through them later.
MAX_DEPTH = 50
#: The depth at which `MAX_DEPTH` is exceeded in any field, however many tables are around it.
MAX_NESTING = 2 * MAX_DEPTH
#: Longer values and names are abbreviated in an error.
MAX_SHOWN = 40
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 2 * MAX_SHOWN

#: Values that need no check but that of their type.
_SCALARS = frozenset((str, int, float, bool, type(None)))
_EXPECTED = re.compile(r"Expected `(.+)`, got `(.+)`")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_PLACE = re.compile(r" - at `(?:key` in `)?\$\.?(.*)`$")
_KINDS = {"array": "a list", "object": "a table"}


def to_json(value: Any) -> Any:
    """Return `value` (a dataclass, or a container of them) as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: object) -> T:
    """Build the dataclass `cls` from plain JSON values, whose strings are made printable.

    Raises:
        ValueError: naming the field that is missing, unknown or of another type.

    """
    data = _make_printable(data)
    try:
        value = msgspec.convert(data, cls, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(_translate(error, cls, data)) from error
    _check(value, data, "")
    return value


def _make_printable(data: Any) -> Any:
    """Return JSON values with printable strings, which are `data` itself if it has no others."""
    return data if _is_plain(data) else _with_printable_texts(data)


def _is_plain(data: Any) -> bool:
    """Return whether all strings in `data` are ASCII without controls; False if it is no JSON."""
    try:
        text = msgspec.json.encode(data)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        return False
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


def _with_printable_texts(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return printable(value)
    if depth < MAX_NESTING and isinstance(value, dict):
        return {
            printable(key) if isinstance(key, str) else key: _with_printable_texts(item, depth + 1)
            for key, item in value.items()
        }
    if depth < MAX_NESTING and isinstance(value, list | tuple):
        return [_with_printable_texts(item, depth + 1) for item in value]
    return value


def _check(value: Any, data: Any, where: str, depth: int = 0) -> None:
    """Refuse what msgspec accepts: unknown fields, huge integers, values nested too deep.

    `value` was built from `data`, field for field; `where` is its place in the whole.
    """
    if depth >= MAX_DEPTH:
        raise ValueError(
            f"field {where} is nested too deep, at most {MAX_DEPTH} levels are allowed"
        )
    if isinstance(value, dict):
        if _SCALARS.issuperset(map(type, value.values())):
            return
        inner = [
            (f".{_abbreviate(k)}", k) for k, item in value.items() if type(item) not in _SCALARS
        ]
    elif isinstance(value, list | tuple):
        inner = [(f"[{i}]", i) for i, item in enumerate(value) if type(item) not in _SCALARS]
    else:
        if dataclasses.is_dataclass(value):
            _check_fields(value, data, f"{where}." if where else "")
        return
    for step, key in inner:
        _check(value[key], data[key], f"{where}{step}" if depth == 0 else where, depth + 1)


def _check_fields(value: Any, data: Mapping[str, Any], prefix: str) -> None:
    cls: Any = type(value)
    known = _field_names(cls)
    for name in data:
        if name not in known:
            raise ValueError(f"unknown field {prefix}{_abbreviate(name)}")
        item = getattr(value, name)
        if type(item) is int and item not in INT64:
            raise ValueError(f"field {prefix}{name} should fit into 64 bits")
        if type(item) not in _SCALARS:
            _check(item, data[name], prefix + name)


@cache
def _field_names(cls: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cls) if field.init)


def _translate(error: msgspec.ValidationError, cls: type, data: object) -> str:
    """Return the message of msgspec as a sentence with the field and, where it is one, the value.

    What a `__post_init__` raised is returned as it is.
    """
    if error.__cause__ is not None:
        return str(error.__cause__)
    path = _PLACE.search(str(error))
    message, where = str(error)[: path.start() if path else None], path[1] if path else ""
    if missing := _MISSING.fullmatch(message):
        return f"field {where}{'.' * bool(where)}{missing[1]} is missing"
    place = f"field {where}" if where else cls.__name__
    expected = _EXPECTED.fullmatch(message)
    allowed = _choices(cls, where)
    if expected and not allowed:
        allowed = [_KINDS.get(kind, kind) for kind in expected[1].split(" | ")]
    if allowed:
        # msgspec does not report which entry of a table it is.
        shown = f"a {expected[2]}" if expected and "[...]" in where else _shown(_find(data, where))
        return f"{place} should be {' or '.join(allowed)}, not {shown}"
    return f"{place} is not usable ({message[0].lower()}{message[1:]})"


def _choices(cls: type, name: str) -> list[str]:
    """Return the values that the field `name` is limited to, of one that has a Literal type."""
    hint = typing.get_type_hints(cls).get(name)
    literals = [
        part for part in (hint, *typing.get_args(hint)) if typing.get_origin(part) is Literal
    ]
    return [repr(value) for literal in literals for value in typing.get_args(literal)]


def _find(data: Any, where: str) -> Any:
    """Return the value at a place such as `stages[1].name`, as msgspec writes it."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", where):
        data = data[name] if name else data[int(index)]
    return data


def _abbreviate(key: object) -> str:
    """Return a name that came with the data, abbreviated."""
    return str(key)[:MAX_SHOWN]


def _shown(value: object) -> str:
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN else f"a {type(value).__name__}"
