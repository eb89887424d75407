"""Reading untrusted pickles without importing or calling anything that they name.

A pickle is a program for a stack machine, without branches. This one knows the instructions that
`torch.save` writes, and a few names, each of which has a constructor here; every other name, and
all that is made from it, becomes a `PickledObject`. Every instruction takes time and memory in
proportion to its own length, and their number is limited.
"""

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from adrbench.checkpoints.refusals import (
    DAMAGED,
    MAX_PICKLE_BYTES,
    OBJECTS,
    RefusedError,
    too_much,
    too_much_text,
)

MAX_OBJECTS = 1_000_000
#: Most objects take between one and four instructions.
MAX_INSTRUCTIONS = 4 * MAX_OBJECTS
#: Longer names of entries would be repeated in the name of everything below them.
MAX_KEY_LENGTH = 1000
#: Python hashes an integer modulo this number, so larger ones can be made to collide.
HASH_MODULUS = sys.hash_info.modulus
#: Of the full name of a class or function, and how many names that are not known are kept.
MAX_NAME_LENGTH, MAX_UNREAD = 300, 10_000
#: How many instructions the lookup of a name counts as.
NAME_COST = 4
#: The length of a number in bytes; converting a much longer one to text takes quadratic time.
MAX_NUMBER_BYTES = 255

Constructor = Callable[[tuple[Any, ...]], Any]


class PickledObject:
    """A placeholder without content for an object that was not read."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<an object that was not read>"


class Name(PickledObject):
    """A name in a pickle that can be called, because `construct` takes its place."""

    __slots__ = ("construct", "full_name")

    def __init__(self, full_name: str, construct: Constructor) -> None:
        self.full_name, self.construct = full_name, construct


class BoundedStream:
    """The binary file `stream`, of which at most `MAX_PICKLE_BYTES` are read.

    Raises `RefusedError` instead of reading more, before memory is allocated for it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.left = stream, MAX_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        self._use(size)
        return self.stream.read(size)

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        line = self.stream.readline(self.left + 1)
        self._use(len(line))
        return line

    def _use(self, size: int) -> None:
        if not 0 <= size <= self.left:
            raise too_much_text()
        self.left -= size


class _Mark:
    """The start of the operands of an instruction that takes any number of them."""


MARK = _Mark()


class PickleMachine:
    """Reads pickles, whose references to storages `load_persistent` resolves.

    `names` maps the full names that are known to a constructor, or to the value itself. `unread`
    contains the full names of all others so far, in order.
    """

    def __init__(
        self, names: Mapping[str, object], load_persistent: Callable[[object], object]
    ) -> None:
        self.names = names
        self.load_persistent = load_persistent
        self.unread: dict[str, None] = {}
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.num_objects = self.num_bytes = self.num_instructions = 0

    def load(self, stream: BoundedStream) -> Any:
        """Return the content of the pickle at the position of `stream`, which is left at its end.

        Raises:
            RefusedError: when it is damaged, too large, or has instructions that are not known.

        """
        self.stack.clear()
        self.memo.clear()
        try:
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                self._count_instructions(1)
                _INSTRUCTIONS.get(opcode.name, _refuse)(self, argument)
            content = self._pop_value()
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise RefusedError(DAMAGED) from error
        return content

    def _count_instructions(self, number: int) -> None:
        self.num_instructions += number
        if self.num_instructions > MAX_INSTRUCTIONS:
            raise too_much(f"over {MAX_INSTRUCTIONS:,} instructions")

    # Values

    def push(self, value: object) -> None:
        """Push a new object."""
        self.num_objects += 1
        if self.num_objects > MAX_OBJECTS:
            raise too_much(f"over {MAX_OBJECTS:,} objects")
        self.stack.append(value)

    def push_number(self, value: int) -> None:
        """Push a number of up to `MAX_NUMBER_BYTES`."""
        if value.bit_length() > 8 * MAX_NUMBER_BYTES:
            raise RefusedError(DAMAGED)
        self.push(value)

    def push_name(self, argument: str | None) -> None:
        """Push the object that a name represents."""
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, name = argument.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError(DAMAGED)
        self._count_instructions(NAME_COST)
        if len(module) + len(name) > MAX_NAME_LENGTH or "\n" in module + name:
            raise RefusedError(OBJECTS)
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.push(self._resolve(f"{module}.{name}"))

    def _resolve(self, full_name: str) -> object:
        if full_name not in self.names:
            self.unread[full_name] = None
            if len(self.unread) > MAX_UNREAD:
                raise too_much(f"objects of over {MAX_UNREAD:,} kinds")
            return PickledObject()
        found = self.names[full_name]
        return Name(full_name, found) if callable(found) else found

    def push_persistent(self, _: None) -> None:
        """Replace a reference on the stack by the object that it refers to."""
        self.push(self.load_persistent(self._pop_value()))

    def push_frozenset(self, _: None) -> None:
        """Push a frozenset, which is not read."""
        self.pop_operands()
        self.push(self._resolve("builtins.frozenset"))

    # Containers

    def pop_operands(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        operands = []
        while (value := self.stack.pop()) is not MARK:
            operands.append(value)
        return operands[::-1]

    def pop_values(self, number: int) -> tuple[Any, ...]:
        """Pop the last `number` values, none of which is a mark."""
        values = [self._pop_value() for _ in range(number)]
        return tuple(values[::-1])

    def append(self, items: Sequence[Any]) -> None:
        """Append items to the list on the stack."""
        match self.stack[-1]:
            case list() as target:
                target += items
            case PickledObject():
                pass
            case _:
                raise RefusedError(OBJECTS)

    def set_items(self, items: Sequence[Any]) -> None:
        """Set alternating names and values in the dictionary on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict | PickledObject):
            raise RefusedError(OBJECTS)
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, dict):
            target.update((take_key(key), value) for key, value in pairs)

    def add_items(self, items: Sequence[Any]) -> None:
        """Add items to the set on the stack."""
        target = self.stack[-1]
        if not isinstance(target, set | PickledObject):
            raise RefusedError(OBJECTS)
        if isinstance(target, set):
            target.update(map(take_key, items))

    # Objects

    def call(self, _: None) -> None:
        """Replace a name and its arguments by what the constructor of the name makes of them."""
        arguments, function = self._pop_value(), self._pop_value()
        if not isinstance(arguments, tuple) or not isinstance(function, PickledObject):
            raise RefusedError(OBJECTS)
        if not isinstance(function, Name):
            self.push(PickledObject())
            return
        self._spend(arguments)
        made = function.construct(arguments)
        if type(made) is PickledObject:
            self.unread[function.full_name] = None
        self.push(made)

    def _spend(self, arguments: tuple[Any, ...]) -> None:
        """Count what a constructor may copy, which other calls may be given again."""
        for value in (arguments, *arguments):
            if isinstance(value, str | bytes | bytearray):
                self.num_bytes += len(value)
            elif isinstance(value, tuple | list | dict | set):
                self.num_objects += len(value)
        if self.num_bytes > MAX_PICKLE_BYTES:
            raise too_much_text()

    def call_with_keywords(self, _: None) -> None:
        """Replace a class, its arguments and keyword arguments by an object that is not read."""
        function, _arguments, _keywords = self.pop_values(3)
        if isinstance(function, Name):
            self.unread[function.full_name] = None
        self.push(PickledObject())

    def set_state(self, _: None) -> None:
        """Drop the state of the object on the stack: its attributes are never read."""
        self._pop_value()
        if not self.stack or self.stack[-1] is MARK:
            raise RefusedError(DAMAGED)

    # The stack

    def _pop_value(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise RefusedError(DAMAGED)
        return value

    def drop(self, _: None) -> None:
        """Pop a value."""
        self.stack.pop()

    def drop_operands(self, _: None) -> None:
        """Pop everything above the last mark, and the mark."""
        self.pop_operands()

    def push_again(self, index: int) -> None:
        """Push an object that was remembered; it is not a new one."""
        self.stack.append(self.memo[index])

    def remember(self, index: int | None) -> None:
        """Remember the object on the stack, by default under the next number."""
        if self.stack[-1] is MARK:
            raise RefusedError(DAMAGED)
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]


def take_key(key: object) -> object:
    """Return a name of an entry, or a placeholder for one whose hash can be made to collide.

    The hash of a tuple is computed again each time, that of nested ones recursively, and equal ones
    are easy to find, as for complex numbers.
    """
    match key:
        case str() | bytes() if len(key) <= MAX_KEY_LENGTH:
            return key
        case int() if abs(key) < HASH_MODULUS:
            return key
        case float() | None | PickledObject():
            return key
    return PickledObject()


def _refuse(machine: PickleMachine, argument: object) -> None:
    raise RefusedError(OBJECTS)


def _ignore(machine: PickleMachine, argument: object) -> None: ...


_INSTRUCTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _ignore),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), PickleMachine.push_number),
    "BINFLOAT": PickleMachine.push,
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING"), PickleMachine.push),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), PickleMachine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), PickleMachine.push),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_operands())),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_values(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_values(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_values(3)),
    "FROZENSET": PickleMachine.push_frozenset,
    "APPEND": lambda machine, _: machine.append(machine.pop_values(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_operands()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_values(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_operands()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_operands()),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), PickleMachine.push_name),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), PickleMachine.call),
    "NEWOBJ_EX": PickleMachine.call_with_keywords,
    "BUILD": PickleMachine.set_state,
    "BINPERSID": PickleMachine.push_persistent,
    "MARK": lambda machine, _: machine.stack.append(MARK),
    "POP": PickleMachine.drop,
    "POP_MARK": PickleMachine.drop_operands,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), PickleMachine.push_again),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), PickleMachine.remember),
}
