"""Pickles rewritten so that torch's restricted unpickler reads them, whatever they name.

Every name it does not allow becomes an inert placeholder, and what a pickle does to one (a call, a
state, items) is dropped, opcode by opcode. Nothing is imported or called here, so a mistake can
lose data but cannot run code.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

OBJECTS = "holds objects, not only tensors: reading them could run code, save a state dict."
DAMAGED = "is truncated or damaged: copy or train it again."
#: More than pickle can write; hashing a tuple nested deeper still overflows the C stack.
MAX_DEPTH = 1000
MAX_NAMES = 1000


class RefusedError(Exception):
    """A file that is not read; the text is what follows its name in the message."""


class PickledObject:
    """Stands for an object of a class that was not imported; keeps nothing of it."""

    def __new__(cls, *_: object) -> "PickledObject":
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __repr__(self) -> str:
        return "<an object that was not read>"


def _add_items(target: set[object], items: tuple[object, ...]) -> set[object]:
    """Do what the opcode ADDITEMS does, which torch's unpickler does not know."""
    target.update(items)
    return target


def _last(*items: object) -> object:
    """Return the last item: takes from the stack what was only there to name it."""
    return items[-1]


def _rebuild_plain(
    rebuild: Callable[..., object], kind: object, arguments: Sequence[object], state: object
) -> object:
    """Rebuild a tensor of a subclass as a tensor."""
    return rebuild(*arguments)


#: What torch's unpickler has to be allowed for a pickle that was rewritten.
REGISTERED = (PickledObject, _add_items, _last, _rebuild_plain)


class _Known(NamedTuple):
    """What stands for a thing on the stack that is more than a constant."""

    kind: str
    num_elements: int = 0


CLASS, OBJECT, MARK = _Known("class"), _Known("object"), _Known("mark")


class _Item(NamedTuple):
    """A place on the stack: the index of the chunk that pushes it, and its value if constant.

    `depth` and `weight` are of a tuple: how deep it is nested, and all the items in it.
    """

    start: int
    value: object = None
    depth: int = 0
    weight: int = 1


def _push(named: Callable[..., object]) -> bytes:
    return f"c{named.__module__}\n{named.__qualname__}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _bytes(content: bytes) -> bytes:
    """Return bytes as protocol 2 writes them: text, encoded by a call."""
    return b"c_codecs\nencode\n" + _text(content.decode("latin1")) + _text("latin1") + b"\x86R"


#: Constants that torch's unpickler does not know, in words that it knows.
CONSTANTS: dict[str, Callable[[Any], bytes]] = {
    "FRAME": lambda _: b"",
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING"), _text),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _bytes),
    "BYTEARRAY8": lambda content: b"cbuiltins\nbytearray\n" + _bytes(content) + b"\x85R",
}
#: What gathers an opcode's operands, above the first, into one that BUILD takes as a state.
GATHER = {
    **dict.fromkeys(("REDUCE", "NEWOBJ", "BUILD", "APPEND"), b""),
    **dict.fromkeys(("NEWOBJ_EX", "SETITEM"), b"\x86"),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), b"t"),
}
CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")
TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


class Rewriter:
    """Rewrites pickles of a file of `size` bytes and collects in `unread` the names they want.

    A pickle is a program without branches, so following its stack once is exact.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.unread: set[str] = set()
        self._names: dict[tuple[str, str], str | None] = {}

    def rewrite(self, stream: io.BytesIO) -> bytes:
        """Rewrite the pickle that begins where `stream` stands, and leave it behind its end."""
        self._chunks: list[bytes] = []
        self._stack: list[_Item] = []
        self._memo: dict[int, _Item] = {}
        content = stream.getbuffer()
        for opcode, argument, position in pickletools.genops(stream):
            assert position is not None
            raw = bytes(content[position : stream.tell()])
            self._step(opcode, argument, raw)
        return b"".join(self._chunks)

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any, raw: bytes) -> None:
        name = opcode.name
        start, operands = self._pop(opcode)
        if name.endswith("PUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            raw = b"r" + len(self._memo).to_bytes(4, "little")
            self._memo[len(self._memo)] = operands[0]
        elif name in CONSTANTS:
            raw = CONSTANTS[name](argument)
        if name == "MEMOIZE" or name.endswith("GET"):
            held = operands[0] if operands else self._memo[argument]
            item = held._replace(start=start)
        else:
            value, raw = self._follow(name, argument, raw, start, operands)
            item = _Item(start, value)
            if name in TUPLES:
                depth = 1 + max((item.depth for item in operands), default=0)
                weight = 1 + sum(item.weight for item in operands)
                if depth > MAX_DEPTH or weight > self.size:
                    raise RefusedError(OBJECTS)
                item = _Item(start, value, depth, weight)
        self._chunks.append(raw)
        self._stack += [item] * len(opcode.stack_after)

    def _pop(self, opcode: pickletools.OpcodeInfo) -> tuple[int, list[_Item]]:
        """Take an opcode's operands; return them and the chunk with which the first begins."""
        before, operands = opcode.stack_before, []
        start = len(self._chunks)
        if pickletools.markobject in before:
            while (item := self._stack.pop()).value is not MARK:
                operands.append(item)
            start = item.start
            before = before[: before.index(pickletools.markobject)]
        operands += [self._stack.pop() for _ in before]
        return (operands[-1].start if before else start), operands[::-1]

    def _follow(
        self, name: str, argument: Any, raw: bytes, start: int, operands: list[_Item]
    ) -> tuple[object, bytes]:
        """Return what an opcode leaves on the stack, and the bytes to have it done."""
        values = tuple(item.value for item in operands)
        value: object = argument if not operands else None
        if name == "MARK":
            value = MARK
        elif name in TUPLES:
            self._check_bounds(values)
            value = values
        elif name == "GLOBAL":
            value, raw = self._resolve(*raw[1:-1].decode().split("\n"))
        elif name == "STACK_GLOBAL":
            module, own = values
            if not isinstance(module, str) or not isinstance(own, str):
                raise RefusedError(DAMAGED)
            value, found = self._resolve(module, own)
            raw = self._call(_last, start, found + b"\x87R")
        elif name == "BINPERSID":
            value, raw = self._follow_persistent(values[0], raw, start)
        elif name == "FROZENSET":
            self.unread.add("builtins.frozenset")
            value, raw = OBJECT, self._call(PickledObject, start, b"tR")
        elif name in GATHER and values[0] is OBJECT:
            value, raw = OBJECT, GATHER[name] + b"b"
        elif name in GATHER and values[0] is CLASS:
            value, raw = OBJECT, (GATHER[name] + b"\x81" if name == "NEWOBJ_EX" else raw)
        elif name == "ADDITEMS":
            raw = self._call(_add_items, start, b"t\x86R")
        elif name in CALLS and isinstance(values[1], tuple):
            self._check_sizes(values[1])
        return value, raw

    def _call(self, named: Callable[..., object], start: int, raw: bytes) -> bytes:
        """Put a name below the operand that begins at `start`, for `raw` to call."""
        self._chunks[start] = _push(named) + self._chunks[start]
        return raw

    def _resolve(self, module: str, name: str) -> tuple[object, bytes]:
        """Return what stands for a name and the bytes that push it."""
        if "\n" in module + name or len(self._names) > MAX_NAMES:
            raise RefusedError(OBJECTS)
        if (module, name) not in self._names:
            self._names[module, name] = _unsafe_name(module, name)
        unsafe = self._names[module, name]
        if unsafe is not None:
            self.unread.add(unsafe)
            return CLASS, _push(PickledObject)
        if name == "_rebuild_from_type_v2":
            return None, _push(_rebuild_plain)
        return None, f"c{module}\n{name}\n".encode()

    def _follow_persistent(self, identity: object, raw: bytes, start: int) -> tuple[object, bytes]:
        """Follow a reference to a storage, or to a class with its source in legacy files."""
        match identity:
            case ("module", *_):
                return CLASS, self._call(_last, start, _push(PickledObject) + b"\x86R")
            case ("storage", _, _, _, int(num_elements), *_):
                self._check_sizes((num_elements,))
                return _Known("storage", num_elements), raw
        return None, raw

    def _check_sizes(self, values: tuple[object, ...]) -> None:
        """Refuse to allocate more elements than the file has bytes."""
        if any(isinstance(value, int) and value > self.size for value in values):
            raise RefusedError(DAMAGED)

    def _check_bounds(self, values: tuple[object, ...]) -> None:
        """Refuse a tensor larger than its storage, which torch would enlarge."""
        if len(values) < 4 or not isinstance(values[0], _Known) or values[0].kind != "storage":
            return
        match values[1:4]:
            case (int(offset), tuple(size), tuple(stride)) if len(size) == len(stride):
                numbers = [number for number in (*size, *stride) if isinstance(number, int)]
                if len(numbers) == 2 * len(size) and min(numbers, default=0) >= 0 <= offset:
                    sizes, strides = numbers[: len(size)], numbers[len(size) :]
                    reach = sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
                    if 0 in sizes or offset + reach < values[0].num_elements:
                        return
        raise RefusedError(DAMAGED)


def _unsafe_name(module: str, name: str) -> str | None:
    """Return the full name of what torch's unpickler would refuse, None for what it knows.

    Asked of torch with a file that holds nothing but the name.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", f"c{module}\n{name}\n.")
        archive.writestr("archive/version", "3\n")
    buffer.seek(0)
    return next(iter(torch.serialization.get_unsafe_globals_in_checkpoint(buffer)), None)
