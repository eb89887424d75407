"""What the names in a pickle of `torch.save` stand for: tensors, storages, and plain containers.

Each constructor takes the arguments that the pickle gives to the name, of any number and types, and
returns a plain value, a `PickledObject` where it is not read, or raises an error that
`PickleMachine.load` reports as damage.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adrbench.checkpoints.pickle_machine import Name, PickledObject, PickleMachine, take_key
from adrbench.checkpoints.refusals import DAMAGED, RefusedError

#: The largest number of dimensions that PyTorch supports in all of its functions.
MAX_DIMENSIONS = 64
#: Of a function that rebuilds a dense tensor.
MAX_ARGUMENTS = 8
#: An expanded tensor has more elements than its storage; larger ones than this are refused.
MAX_EXPANDED = 1_000_000

#: Storage types -> the type of their elements.
ELEMENTS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,
}
#: The types of dense tensors that are read: those whose numbers torch can convert and compare.
READ_TYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.complex128, torch.complex64),
}
#: Functions of torch._utils -> the tensors that they make, which are not read.
ODD_KINDS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_meta_tensor_no_storage": "meta",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_qtensor": "quantized",
    "_rebuild_wrapper_subclass": "wrapped",
    "_rebuild_device_tensor_from_numpy": "device",
    "_rebuild_device_tensor_from_cpu_tensor": "device",
}

#: Returns the storage with a key, of a number of elements of a type.
LoadStorage = Callable[[str, int, torch.dtype], torch.UntypedStorage]


class OddTensor(PickledObject):
    """A tensor that is not read, since it is not dense: `kind` is sparse, quantized, meta, ..."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a {self.kind} tensor that was not read>"


class _StorageType(PickledObject):
    """The type of a storage; `dtype` is that of its elements."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage(PickledObject):
    """A reference to `length` numbers of a storage, from the number `start` on."""

    __slots__ = ("content", "dtype", "length", "start")

    def __init__(
        self, content: torch.UntypedStorage, dtype: torch.dtype, start: int, length: int
    ) -> None:
        if not 0 <= start <= start + length <= len(content) // dtype.itemsize:
            raise RefusedError(DAMAGED)
        self.content, self.dtype, self.start, self.length = content, dtype, start, length


class TensorMachine:
    """A `PickleMachine` that makes tensors, whose storages it gets from `load_storage`."""

    def __init__(self, load_storage: LoadStorage) -> None:
        self.load_storage = load_storage
        names = {
            **PLAIN,
            "torch._utils._rebuild_tensor": self._rebuild,
            "torch._utils._rebuild_tensor_v2": self._rebuild,
            "torch._utils._rebuild_tensor_v3": self._rebuild,
            "collections.OrderedDict": self._make_dict,
            "collections.Counter": self._make_dict,
            "builtins.set": self._make_set,
        }
        self.machine = PickleMachine(names, self._load_persistent)
        self.load, self.unread = self.machine.load, self.machine.unread

    def _load_persistent(self, persistent_id: object) -> object:
        """Resolve a reference to a storage or, in legacy files, to a class with its source."""
        match persistent_id:
            case ("module", PickledObject() as kind, _, _):
                return kind
            case ("storage", _StorageType(dtype=dtype), str(key), _, int(size), *view):
                if size < 0:
                    raise RefusedError(DAMAGED)
                content = self.load_storage(key, size, dtype)
                match view:
                    case [] | [None]:
                        return _Storage(content, dtype, 0, size)
                    case [(_, int(start), int(length))]:
                        return _Storage(content, dtype, start, length)
            case ("storage", PickledObject(), str(), _, *_):  # of a type that is not known
                return PickledObject()
        raise RefusedError(DAMAGED)

    def _rebuild(self, arguments: tuple[Any, ...]) -> Tensor | PickledObject:
        """Return a tensor on the CPU: a view of its storage, of its own sizes and strides."""
        if not 4 <= len(arguments) <= MAX_ARGUMENTS:
            raise RefusedError(DAMAGED)
        if type(arguments[0]) is PickledObject:
            return OddTensor("foreign")
        if not isinstance(arguments[0], _Storage):
            raise RefusedError(DAMAGED)
        storage, offset, size, stride, *more = arguments
        dtype = next((one for one in more if isinstance(one, torch.dtype)), storage.dtype)
        num_elements = storage.length * storage.dtype.itemsize // dtype.itemsize
        _check_bounds(num_elements, offset, size, stride)
        flags = next((one for one in reversed(more) if isinstance(one, dict)), {})
        for flag, kind in (("conj", "conjugated"), ("neg", "negated")):
            if flags.get(flag) is True:
                return OddTensor(kind)
        if dtype not in READ_TYPES:
            return OddTensor(str(dtype).removeprefix("torch."))
        if storage.start and dtype != storage.dtype:
            raise RefusedError(DAMAGED)
        tensor = torch.empty(0, dtype=dtype)
        try:
            return tensor.set_(storage.content, storage.start + offset, size, stride)
        except RuntimeError as error:
            raise RefusedError(DAMAGED) from error

    def _make_dict(self, arguments: tuple[Any, ...]) -> object:
        """Return a dictionary in the order of an OrderedDict or Counter; its items may follow."""
        match arguments:
            case ():
                return {}
            case (dict() as items,):
                return items
            case (list() as pairs,):  # as Python 2 wrote it
                return {take_key(key): value for key, value in pairs}
        return PickledObject()

    def _make_set(self, arguments: tuple[Any, ...]) -> object:
        match arguments:
            case ():
                return set()
            case (list() as items,):
                return set(map(take_key, items))
        return PickledObject()


def _check_bounds(num_elements: int, offset: object, size: object, stride: object) -> None:
    """Refuse a tensor that is larger than its storage, which torch would enlarge."""
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise RefusedError(DAMAGED)
    if len(size) > MAX_DIMENSIONS:
        raise RefusedError(DAMAGED)
    if not all(type(number) is int and 0 <= number < 2**63 for number in (offset, *size, *stride)):
        raise RefusedError(DAMAGED)
    if 0 in size:
        return
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if reach >= num_elements:
        raise RefusedError(DAMAGED)
    if math.prod(size) > max(num_elements, MAX_EXPANDED):
        raise RefusedError(
            f"contains a tensor of {math.prod(size):,} elements, which share the memory of "
            f"{num_elements:,}: save it after calling contiguous()."
        )


def _make_odd(kind: str) -> Callable[[tuple[Any, ...]], OddTensor]:
    return lambda arguments: OddTensor(kind)


def _take_tensor(arguments: tuple[Any, ...]) -> object:
    """Return the data of a parameter, without its other attributes."""
    tensor = arguments[0] if arguments else None
    return tensor if isinstance(tensor, Tensor | OddTensor) else PickledObject()


def _rebuild_subclass(arguments: tuple[Any, ...]) -> object:
    """Rebuild a tensor of a subclass as a plain tensor."""
    match arguments:
        case (Name(full_name=full_name, construct=construct), _, tuple(inner), *_) if (
            full_name.startswith("torch._utils.")
        ):
            return construct(inner)
    return PickledObject()


def _make_bytes(arguments: tuple[Any, ...]) -> object:
    """Return the bytes that protocol 2 writes as text."""
    match arguments:
        case (str(text), "latin1" | "latin-1"):
            return text.encode("latin1")
    return PickledObject()


def _make_no_bytes(arguments: tuple[Any, ...]) -> object:
    """Return the empty bytes, for which protocol 2 has this call."""
    return PickledObject() if arguments else b""


def _make_bytearray(arguments: tuple[Any, ...]) -> object:
    match arguments:
        case ():
            return bytearray()
        case (bytes(content),):
            return bytearray(content)
        case (str(text), "latin1" | "latin-1"):
            return bytearray(text, "latin1")
    raise RefusedError(DAMAGED)


def _make_complex(arguments: tuple[Any, ...]) -> object:
    match arguments:
        case (float(real), float(imaginary)):
            return complex(real, imaginary)
    return PickledObject()


def _take_text(arguments: tuple[Any, ...]) -> object:
    """Return the text from which a device or a layout is made."""
    return arguments[0] if arguments and isinstance(arguments[0], str) else PickledObject()


def _take_tuple(arguments: tuple[Any, ...]) -> object:
    """Return the numbers of a torch.Size."""
    return arguments[0] if arguments and isinstance(arguments[0], tuple) else PickledObject()


#: Names that do not need the storages of a file -> their constructors or values.
PLAIN: dict[str, object] = {
    "torch._utils._rebuild_parameter": _take_tensor,
    "torch._utils._rebuild_parameter_with_state": _take_tensor,
    "torch.nn.parameter.Parameter": _take_tensor,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    **{f"torch._utils.{name}": _make_odd(kind) for name, kind in ODD_KINDS.items()},
    "builtins.bytes": _make_no_bytes,
    "builtins.bytearray": _make_bytearray,
    "builtins.complex": _make_complex,
    "_codecs.encode": _make_bytes,
    "torch.Size": _take_tuple,
    "torch.device": _take_text,
    "torch.serialization._get_layout": _take_text,
    **{f"{value}": value for value in vars(torch).values() if isinstance(value, torch.dtype)},
    **{
        f"{value}": f"{value}" for value in vars(torch).values() if isinstance(value, torch.qscheme)
    },
    **{
        f"{module}.{name}": _StorageType(dtype)
        for name, dtype in ELEMENTS.items()
        for module in ("torch", "torch.cuda", "torch.storage")
    },
}
