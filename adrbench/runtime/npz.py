"""Archives of arrays (`.npz`), each of which is read only after its type and shape are checked."""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from adrbench.runtime.archives import open_archive
from adrbench.runtime.files import open_limited

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Of the table of contents, which takes about 60 bytes for each array.
MAX_DIRECTORY_BYTES = 2**20
#: Enough for the header of any array that numpy reads, which is at most 10,000 characters.
HEADER_BYTES = 16_384
#: How numpy writes arrays; decompressing others is not limited to what is asked for.
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class UnexpectedArrayError(ValueError):
    """An array that is missing, or of another type or shape than the reader expects."""


class Header(NamedTuple):
    """The shape and type that an array's header declares."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def num_bytes(self) -> int:
        """The size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def is_part_of(self, largest: "Header") -> bool:
        """Return whether the array has the type and shape of another, or its first axis less."""
        shape, most = self.shape, largest.shape
        same = self.dtype == largest.dtype and (len(shape), shape[1:]) == (len(most), most[1:])
        return same and shape[:1] <= most[:1]


class Arrays:
    """The arrays in an archive.

    Raises:
        Exception: whatever zipfile raises for a damaged archive.

    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.archive = open_archive(stream, MAX_DIRECTORY_BYTES)
        self.members = {one.filename.removesuffix(".npy"): one for one in self.archive.infolist()}

    @property
    def num_bytes(self) -> int:
        """The size that the archive declares for all that is in it, in bytes."""
        return sum(member.file_size for member in self.archive.infolist())

    def read_header(self, name: str) -> Header:
        """Return the header of an array.

        NumPy itself does not compare the sizes, and returns a member that is not an array as bytes.

        Raises:
            ValueError: when the array is not of the size that it implies, or is one of objects.
            Exception: whatever zipfile and numpy raise for a damaged or missing array.

        """
        import numpy.lib.format as npy

        member = self.members[name]
        if member.compress_type not in READABLE:
            raise ValueError(f"{name} is compressed in another way than numpy does")
        with self.archive.open(member) as stream:
            start = io.BytesIO(stream.read(HEADER_BYTES))
        is_version_1 = npy.read_magic(start) == (1, 0)
        read = npy.read_array_header_1_0 if is_version_1 else npy.read_array_header_2_0
        shape, _, dtype = read(start)
        header = Header(shape, dtype)
        if dtype.hasobject:
            raise ValueError(f"{name} contains objects")
        if start.tell() + header.num_bytes != member.file_size:
            raise ValueError(f"{name} has {member.file_size:,} bytes, for {dtype} of shape {shape}")
        return header

    def read(self, name: str) -> "npt.NDArray[Any]":
        """Return an array, after `read_header`.

        Raises:
            Exception: whatever zipfile and numpy raise for a damaged array.

        """
        import numpy as np
        import numpy.lib.format as npy

        with self.archive.open(self.members[name]) as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))

    def read_all(self, largest: Mapping[str, Header]) -> "dict[str, npt.NDArray[Any]]":
        """Return the arrays of these names, each with the type and shape given there.

        Their first axes may be shorter. All headers are compared before an array is read.

        Raises:
            UnexpectedArrayError: when one is missing, or of another type or shape.
            Exception: whatever zipfile and numpy raise for a damaged array.

        """
        for name, expected in largest.items():
            if name not in self.members:
                raise UnexpectedArrayError(f"it has no {name}")
            header = self.read_header(name)
            if not header.is_part_of(expected):
                raise UnexpectedArrayError(
                    f"{name} has type {header.dtype} and shape {header.shape}, not type "
                    f"{expected.dtype} and at most shape {expected.shape}"
                )
        return {name: self.read(name) for name in largest}


@contextmanager
def open_npz(path: Path, limit: float) -> Iterator[Arrays]:
    """Open the archive at `path`, which takes at most `limit` bytes, also when it is unpacked.

    Raises:
        OSError: when it is missing, not a regular file, or larger.
        ValueError: when it unpacks to more.
        Exception: whatever zipfile raises for a damaged archive.

    """
    with open_limited(path, limit) as stream:
        yield unpacked_within(stream, limit)


def unpacked_within(stream: IO[bytes], limit: float) -> Arrays:
    """Return the arrays of an archive; ValueError unless they take at most `limit` bytes.

    Reading a member never yields more than the size that the archive declares for it.

    Raises:
        Exception: whatever zipfile raises for a damaged archive.

    """
    arrays = Arrays(stream)
    if arrays.num_bytes > limit:
        raise ValueError(f"it unpacks to {arrays.num_bytes:,} bytes")
    return arrays
