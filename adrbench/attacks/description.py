"""What identifies an attack: its class, its attributes and the code behind it.

Two attacks with the same description have the same results, so a record or saved progress of one
counts as one of the other. Everything that may matter is therefore part of the description.
"""

import enum
import functools
import hashlib
import json
import types
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adrbench.config.threat import ThreatModel
from adrbench.runtime.hashing import hash_weights, tensor_bytes
from adrbench.runtime.source_code import fingerprint_modules, has_own_file, is_own

#: The attributes that every module of torch has.
_OF_MODULES = frozenset(vars(nn.Module()))


def describe_stage(stage: object) -> dict[str, Any]:
    """Return the class and the attributes of a stage as plain JSON values.

    A stage with a method `describe_parameters()` is described by what that returns. Tensors, arrays
    and weights are described by a SHA-256, and functions by their names, defaults and closures. A
    key "code" has a fingerprint of the user's source code behind all of these, if there is any.
    """
    walk = _Walk()
    if hasattr(stage, "describe_parameters"):
        described = dict(stage.describe_parameters())
        walk.visit_class(type(stage))
    else:
        described = walk.describe_object(stage)
        described.pop("name", None)
        for name, value in _attributes(stage).items():
            if isinstance(value, ThreatModel):
                del described[name]
                described |= {"norm": value.norm, "eps": value.eps}
    code = fingerprint_modules(walk.modules)
    return {**described, "code": code} if code else described


@dataclass
class _Walk:
    """A walk through an object; `modules` are those that define the classes and functions in it."""

    modules: set[str] = field(default_factory=set)
    #: The objects that are being described, by id, so that a cycle ends.
    outer: set[int] = field(default_factory=set)

    def describe(self, value: object) -> Any:
        """Return a value as plain JSON values."""
        if value is None or isinstance(value, bool | int | float | str):
            return value.value if isinstance(value, enum.Enum) else value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Tensor | np.ndarray):
            return _describe_tensor(value)
        if isinstance(value, PurePath | torch.device | torch.dtype | enum.Enum):
            return str(value)
        if id(value) in self.outer:
            return f"the enclosing {type(value).__qualname__}"
        self.outer.add(id(value))
        try:
            return self._describe_compound(value)
        finally:
            self.outer.remove(id(value))

    def _describe_compound(self, value: object) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.describe(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.describe(one) for one in value]
        if isinstance(value, Set):
            return sorted((self.describe(one) for one in value), key=json.dumps)
        return self._describe_callable(value) or self.describe_object(value)

    def _describe_callable(self, value: object) -> Any:
        """Return what a class, a function or a method is, None for another object."""
        match value:
            case type():
                self.visit_class(value)
                return value.__qualname__
            case types.FunctionType():
                return self._describe_function(value)
            case types.BuiltinFunctionType():
                return value.__qualname__
            case types.MethodType():
                return {"method": value.__func__.__qualname__, "of": self.describe(value.__self__)}
            case functools.partial():
                arguments = [self.describe(value.args), self.describe(value.keywords)]
                return {"partial": self.describe(value.func), "arguments": arguments}
        return None

    def describe_object(self, value: object) -> dict[str, Any]:
        """Return the class and the attributes of an object."""
        described: dict[str, Any] = {"class": type(value).__qualname__}
        bytecode = self.visit_class(type(value))
        if bytecode:
            described["bytecode"] = bytecode
        if isinstance(value, nn.Module):
            described["weights"] = hash_weights(value)[:16]
        attributes = _attributes(value)
        if not attributes and " at 0x" not in repr(value):
            described["value"] = repr(value)
        for name, one in attributes.items():
            described[name] = self.describe(one)
        return described

    def visit_class(self, kind: type) -> str:
        """Note the modules of a class; return a fingerprint of its methods if it has no file."""
        methods = []
        for one in kind.__mro__:
            self.modules.add(one.__module__)
            if is_own(one.__module__) and not has_own_file(one.__module__):
                functions = [f for f in vars(one).values() if isinstance(f, types.FunctionType)]
                methods += [_spell_bytecode(function.__code__) for function in functions]
        return _hash(methods) if methods else ""

    def _describe_function(self, function: types.FunctionType) -> Any:
        """Return the name of a function, and what the name does not show."""
        self.modules.add(function.__module__)
        name = function.__qualname__
        described: dict[str, Any] = {}
        if is_own(function.__module__):
            if "<lambda>" in name or not has_own_file(function.__module__):
                described["bytecode"] = _hash(_spell_bytecode(function.__code__))
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            described |= {"closure": self.describe(cells)} if cells else {}
            described |= {"defaults": self.describe(defaults)} if defaults else {}
        return {"function": name, **described} if described else name


def _attributes(value: object) -> dict[str, Any]:
    """Return the attributes of an object by name, those in slots too."""
    found = dict(_slots(value)) | dict(getattr(value, "__dict__", {}))
    hidden = _OF_MODULES if isinstance(value, nn.Module) else frozenset()
    return {name: one for name, one in found.items() if name not in hidden}


def _slots(value: object) -> Iterator[tuple[str, Any]]:
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _describe_tensor(value: Tensor | np.ndarray[Any, Any]) -> dict[str, Any]:
    if isinstance(value, Tensor):
        content: Any = tensor_bytes(value)
    else:
        content = np.ascontiguousarray(value).tobytes()
    return {
        "shape": list(value.shape),
        "dtype": str(value.dtype),
        "sha256": hashlib.sha256(content).hexdigest()[:16],
    }


def _spell_bytecode(code: types.CodeType) -> list[Any]:
    """Return what a function does, independent of where it is in a file."""
    constants = [
        _spell_bytecode(one)
        if isinstance(one, types.CodeType)
        else sorted(map(repr, one))
        if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, code.co_varnames, constants]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
