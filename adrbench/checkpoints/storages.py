"""The storages in files of `torch.save`, each read once, into memory of its own.

Memory is allocated only for what the file is large enough to contain. Files in the format of torch
1.6 and newer are zip archives, with a checksum for each storage; those in the older one have none.
"""

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import torch

from adrbench.checkpoints.refusals import (
    COMPRESSED,
    DAMAGED,
    EXPORTED,
    MAX_PICKLE_BYTES,
    TORCHSCRIPT,
    RefusedError,
    too_much,
    too_much_text,
)
from adrbench.errors import is_out_of_memory
from adrbench.runtime.archives import LongDirectoryError, open_archive

#: Of the table of contents of an archive, which takes about 70 bytes for each storage.
MAX_DIRECTORY_BYTES = 2**23
#: The place of the lengths of an entry's name and extra field, after which its content begins.
NAME_LENGTHS = 26
#: What zipfile raises for archives that it cannot read.
BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    struct.error,
)


class ZipStorages:
    """The storages in the zip archive `file` of `size` bytes, and the pickle that refers to them.

    Raises:
        RefusedError: when it is damaged, compressed, or another kind of archive.

    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size
        self.loaded: dict[str, torch.UntypedStorage] = {}
        with _refusing_damage():
            self.archive = open_archive(file, MAX_DIRECTORY_BYTES)
            names = self.archive.namelist()
            self.root = names[0].partition("/")[0]
            if f"{self.root}/constants.pkl" in names:
                raise RefusedError(TORCHSCRIPT)
            if {f"{self.root}/archive_format", "serialized_exported_program.json"} & set(names):
                raise RefusedError(EXPORTED)
            if len(set(names)) < len(names):
                raise RefusedError(DAMAGED)
            byte_order: str = sys.byteorder
            if f"{self.root}/byteorder" in names:
                byte_order = self._read("byteorder").decode("ascii")
            if byte_order not in ("little", "big"):
                raise RefusedError(DAMAGED)
        self.is_swapped = byte_order != sys.byteorder

    def open_pickle(self) -> IO[bytes]:
        """Return the stream of the pickle."""
        with _refusing_damage():
            return io.BytesIO(self._read("data.pkl"))

    def load(self, key: str, num_elements: int, dtype: torch.dtype) -> torch.UntypedStorage:
        """Return the storage of `num_elements` numbers with a key."""
        num_bytes = num_elements * dtype.itemsize
        if key not in self.loaded:
            with _refusing_damage():
                info = self._find(f"data/{key}")
                if info.file_size != num_bytes:
                    raise RefusedError(DAMAGED)
                self.left -= num_bytes
                if self.left < 0:
                    raise RefusedError(DAMAGED)
                storage, buffer = _allocate(num_bytes)
                self._read_into(info, buffer)
            if self.is_swapped:
                storage.byteswap(dtype)  # type: ignore[no-untyped-call]
            self.loaded[key] = storage
        elif len(self.loaded[key]) != num_bytes:
            raise RefusedError(DAMAGED)
        return self.loaded[key]

    def _find(self, name: str) -> zipfile.ZipInfo:
        info = self.archive.getinfo(f"{self.root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(COMPRESSED)
        if info.compress_size != info.file_size:
            raise RefusedError(DAMAGED)
        return info

    def _read(self, name: str) -> bytearray:
        """Return the content of an entry other than a storage."""
        info = self._find(name)
        if info.file_size > self.left:
            raise RefusedError(DAMAGED)
        if info.file_size > MAX_PICKLE_BYTES:
            raise too_much_text()
        content = bytearray(info.file_size)
        self._read_into(info, memoryview(content))
        return content

    def _read_into(self, info: zipfile.ZipInfo, buffer: memoryview) -> None:
        """Read an entry straight into its memory, and compare it with its checksum.

        That is 0 in files written without checksums (`torch.serialization.set_crc32_options`).
        """
        self.file.seek(info.header_offset + NAME_LENGTHS)
        lengths = self.file.read(4)
        start = info.header_offset + NAME_LENGTHS + 4 + sum(struct.unpack("<HH", lengths))
        self.file.seek(start)
        _fill(self.file, buffer)
        if info.CRC and zlib.crc32(buffer) != info.CRC:
            raise RefusedError(DAMAGED)


class LegacyStorages:
    """The storages in a file of `size` bytes, where they follow the pickles that refer to them."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.buffers: dict[str, memoryview] = {}
        self.loaded: dict[str, tuple[torch.UntypedStorage, torch.dtype]] = {}

    def load(self, key: str, num_elements: int, dtype: torch.dtype) -> torch.UntypedStorage:
        """Return the storage of `num_elements` numbers with a key, which `fill` will read."""
        num_bytes = num_elements * dtype.itemsize
        if key not in self.loaded:
            self.left -= num_bytes
            if self.left < 0:
                raise RefusedError(DAMAGED)
            storage, self.buffers[key] = _allocate(num_bytes)
            self.loaded[key] = storage, dtype
        storage, stored = self.loaded[key]
        if (len(storage), stored) != (num_bytes, dtype):
            raise RefusedError(DAMAGED)
        return storage

    def fill(self, keys: object, stream: IO[bytes]) -> None:
        """Read the storages, which have these keys, from the position of `stream`.

        Raises:
            RefusedError: when one is missing or of another size.

        """
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise RefusedError(DAMAGED)
        if len(set(keys)) < len(keys) or self.loaded.keys() != set(keys):
            raise RefusedError(DAMAGED)
        for key in keys:
            storage, dtype = self.loaded[key]
            if int.from_bytes(stream.read(8), "little") * dtype.itemsize != len(storage):
                raise RefusedError(DAMAGED)
            _fill(stream, self.buffers[key])


def _allocate(num_bytes: int) -> tuple[torch.UntypedStorage, memoryview]:
    """Return a new storage, and its memory."""
    tensor = torch.empty(num_bytes, dtype=torch.uint8)
    return tensor.untyped_storage(), tensor.numpy().data


def _fill(stream: IO[bytes], buffer: memoryview) -> None:
    """Read as many bytes as `buffer` has."""
    if stream.readinto(buffer) < len(buffer):  # type: ignore[attr-defined]
        raise RefusedError(DAMAGED)


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Raise RefusedError for whatever zipfile raises for a damaged archive."""
    try:
        yield
    except LongDirectoryError as error:
        raise too_much(str(error)) from error
    except BROKEN_ARCHIVE as error:
        if is_out_of_memory(error):
            raise
        raise RefusedError(DAMAGED) from error
