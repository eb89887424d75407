"""Reading the tensors of untrusted `torch.save` files without running any code they name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from adrbench.checkpoints.extent import Extent, measure
from adrbench.checkpoints.pickle_machine import BoundedStream, PickledObject
from adrbench.checkpoints.pickled_tensors import TensorMachine
from adrbench.checkpoints.refusals import NOT_TORCH, RefusedError
from adrbench.checkpoints.storages import LegacyStorages, ZipStorages
from adrbench.checkpoints.weights_files import open_weights, size_of
from adrbench.errors import CheckpointError, list_first

#: The magic number at the start of files in the format before torch 1.6, as pickled.
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
#: The pickles before the content of such a file: the magic number, a version, and the system.
NUM_LEGACY_HEADERS = 3
MAX_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """The content of a file, on the CPU.

    `content` has a `PickledObject` in place of everything but dense tensors, plain values and
    containers; `unread` lists the full names of the classes and functions replaced, sorted.
    `kind` is the type of the whole content if it is such an object, otherwise None. `extent` is how
    much there is in the content, and `size` that of the file in bytes.
    """

    content: Any
    unread: tuple[str, ...]
    kind: str | None = None
    extent: Extent = field(default_factory=Extent, compare=False)
    size: int = field(default=0, compare=False)


def read_torch_file(path: Path) -> TorchFile:
    """Read `path` without importing or calling anything that it names.

    Time and memory are in proportion to the size of the file, whatever it contains.

    Raises:
        CheckpointError: when the file is missing, a directory, empty, truncated, damaged, a web
            page, not written by `torch.save`, or contains more objects than weights need.

    """
    with open_weights(path) as (file, start):
        size = size_of(file)
        try:
            if start.startswith(b"PK"):
                machine, content = _read_zip(file, size)
            elif LEGACY_MAGIC in start[:32]:
                machine, content = _read_legacy(file, size)
            else:
                raise RefusedError(NOT_TORCH)
            extent = measure(content)
        except RefusedError as error:
            raise CheckpointError(f"{path} {error}") from error
    # A pickle names the class of an object before anything that the object holds.
    kind = (
        next(iter(machine.unread), "torch.Tensor") if isinstance(content, PickledObject) else None
    )
    unread = tuple(sorted(machine.unread))
    return TorchFile(content=content, unread=unread, kind=kind, extent=extent, size=size)


def _read_zip(file: IO[bytes], size: int) -> tuple[TensorMachine, Any]:
    storages = ZipStorages(file, size)
    machine = TensorMachine(storages.load)
    return machine, machine.load(BoundedStream(storages.open_pickle()))


def _read_legacy(file: IO[bytes], size: int) -> tuple[TensorMachine, Any]:
    """Read a file in the format before torch 1.6, in which storages follow the pickles."""
    storages = LegacyStorages(size)
    machine = TensorMachine(storages.load)
    pickles = BoundedStream(file)
    for _ in range(NUM_LEGACY_HEADERS):
        machine.load(pickles)
    content, keys = machine.load(pickles), machine.load(pickles)
    storages.fill(keys, file)
    return machine, content


def is_torch_content(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is an archive or a pickle of torch's."""
    return start.startswith((b"PK", b"\x80"))


def describe_unread(unread: Sequence[str]) -> str:
    """Return the first few names as a list, such as `a.B, c.D, e.F and 2 more`."""
    return list_first(unread, MAX_SHOWN)
