"""Rewriting of pickles so that torch's restricted unpickler can read them, whatever they name.

Every name that it does not allow is replaced by an inert placeholder, and the operations on a
placeholder (calls, states, items) are dropped, opcode by opcode. Nothing is imported or called
here, so a mistake can lose data but cannot run code.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

OBJECTS = "contains objects other than tensors, and reading them could run code: save a state dict."
DAMAGED = "is truncated or damaged: copy or train it again."
#: Deeper than pickle can write; hashing a tuple that is nested much deeper overflows the C stack.
MAX_DEPTH = 1000
MAX_NAMES = 1000


class RefusedError(Exception):
    """A file that is not read; the text follows the file's name in the error message."""


class PickledObject:
    """A placeholder without content for an object whose class was not imported."""

    def __new__(cls, *_: object) -> "PickledObject":
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __repr__(self) -> str:
        return "<an object that was not read>"


def _add_items(target: set[object], items: tuple[object, ...]) -> set[object]:
    """Implement the opcode ADDITEMS, which torch's unpickler does not support."""
    target.update(items)
    return target


def _last(*items: object) -> object:
    """Return the last item: drops the operands below it from the stack."""
    return items[-1]


def _rebuild_plain(
    rebuild: Callable[..., object], kind: object, arguments: Sequence[object], state: object
) -> object:
    """Rebuild a tensor of a subclass as a plain tensor."""
    return rebuild(*arguments)


#: The names that torch's unpickler must allow in a rewritten pickle.
REGISTERED = (PickledObject, _add_items, _last, _rebuild_plain)


class _Symbol(NamedTuple):
    """Represents a value on the stack that is not a constant."""

    kind: str
    num_elements: int = 0


CLASS, OBJECT, MARK = _Symbol("class"), _Symbol("object"), _Symbol("mark")


class _Item(NamedTuple):
    """A stack entry: the index of the chunk that starts pushing it, and its value if known.

    For a tuple, `depth` is its nesting depth and `weight` the total number of nested items.
    """

    start: int
    value: object = None
    depth: int = 0
    weight: int = 1


def _push_global(target: Callable[..., object]) -> bytes:
    return f"c{target.__module__}\n{target.__qualname__}\n".encode()


def _push_text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _push_bytes(content: bytes) -> bytes:
    """Push bytes as protocol 2 does: as text that a call encodes."""
    text = _push_text(content.decode("latin1")) + _push_text("latin1")
    return b"c_codecs\nencode\n" + text + b"\x86R"


#: Opcodes of constants that torch's unpickler does not support -> equivalents that it supports.
CONSTANTS: dict[str, Callable[[Any], bytes]] = {
    "FRAME": lambda _: b"",
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING"), _push_text),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _push_bytes),
    "BYTEARRAY8": lambda content: b"cbuiltins\nbytearray\n" + _push_bytes(content) + b"\x85R",
}
#: The opcode that packs an opcode's operands, above the first, into one state for BUILD.
GATHER = {
    **dict.fromkeys(("REDUCE", "NEWOBJ", "BUILD", "APPEND"), b""),
    **dict.fromkeys(("NEWOBJ_EX", "SETITEM"), b"\x86"),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), b"t"),
}
CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")
TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


class Rewriter:
    """Rewrites pickles in a file of `size` bytes; `unread` holds the names it replaced, in order.

    A pickle is a program without branches, so a single simulation of its stack is exact.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.unread: dict[str, None] = {}
        self._names: dict[tuple[str, str], str | None] = {}

    def rewrite(self, stream: io.BytesIO) -> bytes:
        """Return the rewritten pickle at the position of `stream`, and move `stream` to its end."""
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
            memoized = operands[0] if operands else self._memo[argument]
            item = memoized._replace(start=start)
        else:
            value, raw = self._simulate(name, argument, raw, start, operands)
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
        """Pop an opcode's operands; return the chunk at which they start, and the operands."""
        before, operands = opcode.stack_before, []
        start = len(self._chunks)
        if pickletools.markobject in before:
            while (item := self._stack.pop()).value is not MARK:
                operands.append(item)
            start = item.start
            before = before[: before.index(pickletools.markobject)]
        operands += [self._stack.pop() for _ in before]
        return (operands[-1].start if before else start), operands[::-1]

    def _simulate(
        self, name: str, argument: Any, raw: bytes, start: int, operands: list[_Item]
    ) -> tuple[object, bytes]:
        """Return the value that an opcode pushes, and the bytes to write for it."""
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
            module, attribute = values
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise RefusedError(DAMAGED)
            value, push = self._resolve(module, attribute)
            raw = self._call(_last, start, push + b"\x87R")
        elif name == "BINPERSID":
            value, raw = self._resolve_persistent(values[0], raw, start)
        elif name == "FROZENSET":
            self.unread["builtins.frozenset"] = None
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

    def _call(self, target: Callable[..., object], start: int, raw: bytes) -> bytes:
        """Push `target` below the operand that begins at chunk `start`, for `raw` to call."""
        self._chunks[start] = _push_global(target) + self._chunks[start]
        return raw

    def _resolve(self, module: str, name: str) -> tuple[object, bytes]:
        """Return the value that represents a global name, and the bytes that push it."""
        if "\n" in module + name or len(self._names) > MAX_NAMES:
            raise RefusedError(OBJECTS)
        if (module, name) not in self._names:
            self._names[module, name] = _unsafe_name(module, name)
        unsafe = self._names[module, name]
        if unsafe is not None:
            self.unread[unsafe] = None
            return CLASS, _push_global(PickledObject)
        if name == "_rebuild_from_type_v2":
            return None, _push_global(_rebuild_plain)
        return None, f"c{module}\n{name}\n".encode()

    def _resolve_persistent(
        self, persistent_id: object, raw: bytes, start: int
    ) -> tuple[object, bytes]:
        """Resolve a reference to a storage or, in legacy files, to a class with its source."""
        match persistent_id:
            case ("module", *_):
                return CLASS, self._call(_last, start, _push_global(PickledObject) + b"\x86R")
            case ("storage", _, _, _, int(num_elements), *_):
                self._check_sizes((num_elements,))
                return _Symbol("storage", num_elements), raw
        return None, raw

    def _check_sizes(self, values: tuple[object, ...]) -> None:
        """Refuse to allocate more elements than the file has bytes."""
        if any(isinstance(value, int) and value > self.size for value in values):
            raise RefusedError(DAMAGED)

    def _check_bounds(self, values: tuple[object, ...]) -> None:
        """Refuse a tensor larger than its storage, which torch would enlarge."""
        if len(values) < 4 or not isinstance(values[0], _Symbol) or values[0].kind != "storage":
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
    """Return the full name if torch's unpickler does not allow it, otherwise None.

    Queries torch with a file that holds only the name.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", f"c{module}\n{name}\n.")
        archive.writestr("archive/version", "3\n")
    buffer.seek(0)
    return next(iter(torch.serialization.get_unsafe_globals_in_checkpoint(buffer)), None)
