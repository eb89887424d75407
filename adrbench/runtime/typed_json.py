"""Frozen dataclasses to and from plain JSON values, with every type checked on the way in.

Configurations, records and checkpoint headers all travel through here, so a file that was
edited by hand or written by something else fails with the field's name, not deep in a run.
"""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

#: Whole numbers beyond would overflow wherever they meet a float or an array.
INT64 = range(-(2**63), 2**63)
#: Anything deeper could exhaust the stack of what walks through it later.
DEEPEST = 50
#: Longer values and names are not spelt out in an error.
MOST_SHOWN = 40
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 2 * MOST_SHOWN

#: (value, where it stands) -> the value as its type hint asks for; ValueError names the place.
Read = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Reader:
    """What reads values of one type.

    `read` takes any value. One whose class is in `plain` would come back as it is: most values
    are such, and a set says so faster than a call.
    """

    read: Read
    plain: frozenset[type] = frozenset()


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
    """Build the dataclass `cls` from plain JSON values.

    Raises:
        ValueError: naming the field that is missing, unknown or of another type.

    """
    built: T = _reader(typing.cast("Any", cls)).read(data, "")
    return built


@cache
def _reader(hint: Any) -> Reader:
    """Return what reads values of a type; made once per type, since records come in thousands."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _dataclass_reader(hint)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(args)
    if origin is typing.Literal:
        return _checked(lambda value: value in args, " or ".join(map(repr, args)))
    if origin is tuple:
        return _list_reader(_reader(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_reader(_reader(args[1]))
    return _SCALARS[hint]


def _checked(fits: Callable[[Any], bool], description: str, *plain: type) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not fits(value):
            raise ValueError(f"field {where} should be {description}, not {_shown(value)}")
        return value

    return Reader(read, frozenset(plain))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_int(value: Any, where: str) -> int:
    if not _is_whole(value):
        raise ValueError(f"field {where} should be int, not {_shown(value)}")
    if value not in INT64:
        raise ValueError(f"field {where} should fit into 64 bits")
    return int(value)


def _read_float(value: Any, where: str) -> float:
    if not _is_whole(value) and not isinstance(value, float):
        raise ValueError(f"field {where} should be float, not {_shown(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"field {where} should fit into a float") from error


def _read_any(value: Any, where: str) -> Any:
    level = [value]
    for _ in range(DEEPEST):
        level = [item for outer in level for item in _nested_in(outer)]
        if not level:
            return value
    raise ValueError(f"field {where} should be nested {DEEPEST} deep at most")


def _nested_in(value: Any) -> list[Any]:
    """Return the lists and tables directly inside `value`."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, (dict, list))]


_SCALARS: dict[Any, Reader] = {
    Any: Reader(_read_any, frozenset((types.NoneType, bool, int, float, str))),
    types.NoneType: _checked(lambda value: value is None, "null", types.NoneType),
    bool: _checked(lambda value: isinstance(value, bool), "bool", bool),
    int: Reader(_read_int),
    float: Reader(_read_float, frozenset((float,))),
    str: _checked(lambda value: isinstance(value, str), "str", str),
}


def _union_reader(options: tuple[Any, ...]) -> Reader:
    readers = [_reader(option) for option in options]
    names = ["null" if o is types.NoneType else getattr(o, "__name__", str(o)) for o in options]

    def read(value: Any, where: str) -> Any:
        for reader in readers:
            try:
                return reader.read(value, where)
            except ValueError:
                continue
        raise ValueError(f"field {where} should be {' or '.join(names)}, not {_shown(value)}")

    # An earlier option may convert what a later one leaves (int to float); none converts null.
    null = {types.NoneType} & set(options)
    return Reader(read, readers[0].plain | null)


def _list_reader(item: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"field {where} should be a list, not {_shown(value)}")
        return tuple(
            entry if type(entry) in item.plain else item.read(entry, f"{where}[{index}]")
            for index, entry in enumerate(value)
        )

    return Reader(read)


def _mapping_reader(item: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, (dict, Mapping)):
            raise ValueError(f"field {where} should be a table, not {_shown(value)}")
        return {
            str(key): entry
            if type(entry) in item.plain
            else item.read(entry, f"{where}.{_name(key)}")
            for key, entry in value.items()
        }

    return Reader(read)


def _dataclass_reader(cls: Any) -> Reader:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    readers = {name: (name, _reader(hints[name])) for name in fields}
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, (dict, Mapping)):
            place = f"field {where}" if where else cls.__name__
            raise ValueError(f"{place} should be a table of fields, not {_shown(value)}")
        prefix = f"{where}." if where else ""
        if value.keys() != readers.keys():
            _check_names(value, prefix, required, readers)
        arguments = {}
        for key, item in value.items():
            # Arguments whose names are the class's own strings are matched by identity.
            name, reader = readers[key]
            plain = type(item) in reader.plain
            arguments[name] = item if plain else reader.read(item, prefix + name)
        return cls(**arguments)

    return Reader(read)


def _check_names(
    value: Mapping[Any, Any], prefix: str, required: Iterable[str], known: Container[str]
) -> None:
    for name in required:
        if name not in value:
            raise ValueError(f"field {prefix}{name} is missing")
    for name in value:
        if name not in known:
            raise ValueError(f"unknown field {prefix}{_name(name)}")


def _name(key: object) -> str:
    """Return a name that came with the data, on one line."""
    return repr(str(key)[:MOST_SHOWN])[1:-1]


def _shown(value: object) -> str:
    text = _SHORT.repr(value)
    return text if len(text) <= MOST_SHOWN else f"a {type(value).__name__}"
