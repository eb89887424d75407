"""What identifies an attack: its class, its attributes and the code behind them.

Two attacks with the same description have the same results, so a record or saved progress of one
counts as one of the other. Everything that may matter is therefore part of the description.
"""

import copyreg
import enum
import functools
import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrbench.registry import calling_user_code
from adrbench.runtime.hashing import tensor_bytes
from adrbench.runtime.source_code import fingerprint_modules, has_own_file, is_own

#: The most characters of an attribute's description; a longer one is replaced by its SHA-256.
MOST_CHARACTERS = 1_000
#: The protocol of `object.__reduce_ex__`, by which an object names what it is made of.
PROTOCOL = 4


def describe_stage(stage: Any) -> dict[str, Any]:
    """Return the class and the attributes of a stage as plain JSON values.

    A stage with a method `describe_parameters()` is described by what that returns. Objects are
    described by what pickle would store of them, tensors and long values by a SHA-256, and classes
    and functions of the user's by their names and a fingerprint "code" of their modules, bytecode,
    defaults and closures.

    Raises:
        UserCodeError: when an attribute cannot be described.

    """
    walk = _Walk()
    with calling_user_code(lambda raised: f"attack {stage.name} {raised} when it was described."):
        if hasattr(stage, "describe_parameters"):
            code = walk.describe_class(type(stage)).get("code")
            parameters = dict(stage.describe_parameters())
            json.dumps(parameters)  # raises for values that a record cannot store
            return parameters | ({"code": code} if code else {})
        described = walk.describe_object(stage)
    described.pop("name", None)
    return {name: _shorten(value) for name, value in described.items()}


class _Walk:
    """A walk through an object, which describes everything that it refers to once.

    `classes` are the descriptions of the classes met so far, also by other walks.
    """

    def __init__(self, classes: dict[type, dict[str, Any]] | None = None) -> None:
        self.classes: dict[type, dict[str, Any]] = {} if classes is None else classes
        #: What may be shared or part of a cycle. Keeping it keeps the ids in `numbers`.
        self.visited: list[object] = []
        self.numbers: dict[int, int] = {}

    def describe(self, value: object) -> Any:
        """Return a value as plain JSON values."""
        for kinds, spell in _LEAVES:
            if isinstance(value, kinds):
                return spell(value)
        if isinstance(value, tuple):
            return [self.describe(one) for one in value]
        if id(value) in self.numbers:
            return f"#{self.numbers[id(value)]}"
        self.numbers[id(value)] = len(self.visited)
        self.visited.append(value)
        return self._describe_compound(value)

    def _describe_compound(self, value: object) -> Any:
        match value:
            case dict() | types.MappingProxyType():
                return self._describe_pairs(value.items())
            case list():
                return [self.describe(one) for one in value]
            case set() | frozenset():
                # Each in a walk of its own, since their order is not fixed.
                return sorted((_Walk(self.classes).describe(one) for one in value), key=json.dumps)
            case type():
                return self.describe_class(value)
            case types.FunctionType():
                return self._describe_function(value)
        return self.describe_object(value)

    def describe_object(self, value: object) -> dict[str, Any]:
        """Return the class of an object and what it is made of, by `__reduce_ex__`."""
        described = dict(self.describe_class(type(value)))
        try:
            reduced: Any = value.__reduce_ex__(PROTOCOL)
        except Exception:  # such as a lock or a file, which cannot be pickled
            reduced = (object, (), getattr(value, "__dict__", None))
        if isinstance(reduced, str):
            return {**described, "global": reduced}
        parts: list[Any] = [*reduced, None, None, None]
        constructor, arguments, state, items, pairs = parts[:5]
        if constructor not in _CONSTRUCTORS:
            described["constructor"] = self.describe(constructor)
        others = [one for one in arguments if one is not type(value)]
        if others:
            described["arguments"] = self.describe(others)
        # The state of an object with slots is (its dictionary or None, its slots).
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            if isinstance(part, dict) and all(isinstance(name, str) for name in part):
                described |= {name: self.describe(one) for name, one in part.items()}
            elif part is not None:
                described["state"] = self.describe(part)
        if items is not None:
            described["items"] = [self.describe(one) for one in items]
        if pairs is not None:
            described["pairs"] = self._describe_pairs(pairs)
        return described

    def describe_class(self, kind: type) -> dict[str, Any]:
        """Return the name of a class, and a fingerprint of the user's code behind it."""
        if kind not in self.classes:
            described = self.classes[kind] = {"class": kind.__qualname__}
            own = [one for one in kind.__mro__ if is_own(one.__module__)]
            if own:
                members = [_Walk(self.classes).describe(_members(one)) for one in own]
                described |= _code_of([one.__module__ for one in own], members)
        return self.classes[kind]

    def _describe_function(self, function: types.FunctionType) -> Any:
        if not is_own(function.__module__):
            return f"{function.__module__}.{function.__qualname__}"
        code = function.__code__
        cells = [_read_cell(cell) for cell in function.__closure__ or ()]
        content = [cells, function.__defaults__, function.__kwdefaults__, vars(function)]
        if not has_own_file(function.__module__):  # what it uses is in no file either
            names = [name for name in _find_names(code) if name in function.__globals__]
            content.append({name: function.__globals__[name] for name in names})
        described = self.describe(content)
        return {
            "function": function.__qualname__,
            **_code_of([function.__module__], [_spell_bytecode(code), described]),
        }

    def _describe_pairs(self, pairs: Iterable[tuple[Any, Any]]) -> Any:
        described = [(key, self.describe(one)) for key, one in pairs]
        if all(isinstance(key, str) for key, _ in described):
            return dict(described)
        return [[self.describe(key), one] for key, one in described]


#: What makes an object of a class from its state alone.
_CONSTRUCTORS: tuple[object, ...] = (
    copyreg.__newobj__,  # type: ignore[attr-defined]
    copyreg._reconstructor,  # type: ignore[attr-defined]
    object,
)
#: Attributes of a class that say nothing about what it does.
_IGNORED = re.compile(
    "__(dict|weakref|module|doc|qualname|annotations.*|annotate.*|static_attributes|firstlineno"
    "|match_args|slots|slotnames|parameters|orig_bases|dataclass_.*|abstractmethods|protocol_attrs"
    "|non_callable_proto_members)__|_abc_impl|_is_(runtime_)?protocol"
)


def _code_of(modules: list[str], content: Any = None) -> dict[str, str]:
    """Return a fingerprint of the user's modules and further content; {} if there is none."""
    code = fingerprint_modules(modules)
    if not code and content is None:
        return {}
    text = json.dumps([code, content], sort_keys=True)
    return {"code": _hash(text.encode())}


def _members(kind: type) -> dict[str, object]:
    """Return the members of a class that say what it does: functions and values."""
    members = vars(kind).items()
    return {name: _unwrap(one) for name, one in members if not _IGNORED.fullmatch(name)}


def _unwrap(member: object) -> object:
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return [member.fget, member.fset, member.fdel]
    if isinstance(member, functools.cached_property):
        return member.func
    is_slot = isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType)
    return None if is_slot else member


def _read_cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _describe_tensor(tensor: Tensor) -> dict[str, Any]:
    return _describe_array(tensor.shape, tensor.dtype, tensor_bytes(tensor))


def _describe_numpy(array: "np.ndarray[Any, Any]") -> dict[str, Any]:
    if array.dtype.hasobject:
        return {"shape": list(array.shape), "objects": _Walk().describe(array.tolist())}
    return _describe_array(array.shape, array.dtype, array.tobytes())


def _describe_array(shape: Iterable[int], dtype: object, content: Any) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": str(dtype), "sha256": _hash(content)}


def _describe_builtin(function: Any) -> Any:
    """Return the name of a function that is written in C, and what it is a method of."""
    name = f"{function.__module__}.{function.__qualname__}"
    owner = function.__self__
    return name if isinstance(owner, types.ModuleType | None) else [name, _Walk().describe(owner)]


def _hash(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


#: Types of values that refer to no others -> their description.
_LEAVES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: f"{type(value).__qualname__}.{value.name}"),
    (types.NoneType | bool | int, lambda value: value),
    (float, lambda value: float(value) if math.isfinite(value) else str(value)),
    (str, lambda value: value.encode(errors="backslashreplace").decode()),
    (bytes | bytearray | memoryview, lambda value: {"bytes": _hash(value)}),
    (np.integer | np.floating | np.bool_, lambda value: _Walk().describe(value.item())),
    (np.generic, lambda value: f"{value.dtype} {value!r}"),
    (torch.device | torch.dtype | np.dtype | range | slice | complex, repr),
    (Tensor, _describe_tensor),
    (np.ndarray, _describe_numpy),
    (torch.Generator, lambda value: _describe_tensor(value.get_state())),
    (types.ModuleType, lambda value: {"module": value.__name__, **_code_of([value.__name__])}),
    (types.BuiltinFunctionType, _describe_builtin),
)


def _find_names(code: types.CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes that a function uses, also in inner functions."""
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _find_names(one)


def _spell_bytecode(code: types.CodeType) -> list[Any]:
    """Return what a function does, independent of where it is in a file."""
    return [code.co_code.hex(), code.co_names, code.co_varnames, [*map(_spell, code.co_consts)]]


def _spell(constant: object) -> Any:
    """Return a constant of a function as JSON values, in an order that is always the same."""
    match constant:
        case types.CodeType():
            return _spell_bytecode(constant)
        case frozenset():
            return sorted(map(repr, constant))
        case tuple():
            return [*map(_spell, constant)]
    return repr(constant)


def _shorten(value: Any) -> Any:
    """Return a description, or a fingerprint of it if it is long."""
    text = json.dumps(value, sort_keys=True)
    if len(text) <= MOST_CHARACTERS:
        return value
    return {"sha256": _hash(text.encode())}
