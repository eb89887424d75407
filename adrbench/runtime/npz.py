"""Archives of arrays (`.npz`), whose sizes are checked before anything in them is unpacked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from adrbench.runtime.files import open_limited
from adrbench.runtime.memory import total_memory

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile


@contextmanager
def open_npz(path: Path) -> Iterator["NpzFile"]:
    """Open the archive at `path`; the arrays in it must fit into memory.

    Raises:
        OSError: when it is missing, not a regular file, or too large.
        ValueError: when it is not an archive, or unpacks to more than the memory of this machine.

    """
    limit = total_memory()
    with open_limited(path, limit) as stream, unpacked_within(stream, limit) as arrays:
        yield arrays


@contextmanager
def unpacked_within(stream: BinaryIO, limit: float) -> Iterator["NpzFile"]:
    """Open an archive whose arrays take at most `limit` bytes; ValueError for any other.

    Reading a member never yields more than the size that the archive declares for it.
    """
    import numpy as np

    if stream.read(2) != b"PK":
        raise ValueError("it is not an archive")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        num_bytes = sum(member.file_size for member in arrays.zip.infolist())
        if num_bytes > limit:
            raise ValueError(f"it unpacks to {num_bytes:,} bytes")
        yield arrays
