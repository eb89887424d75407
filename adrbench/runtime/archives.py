"""Zip archives, whose table of contents is read only if it is short."""

import io
import os
import zipfile
from typing import IO


class LongDirectoryError(ValueError):
    """An archive with a longer table of contents than is read; its text says what it contains."""


def open_archive(file: IO[bytes], limit: int) -> zipfile.ZipFile:
    """Open the archive `file`, which is not closed with it.

    zipfile reads the table of contents at once, makes an object of each entry, and takes a time
    quadratic in the length of an entry's extra field. Neither it nor a part of an entry is read in
    one piece of over `limit` bytes.

    Raises:
        LongDirectoryError: when its table of contents has over `limit` bytes.
        Exception: whatever zipfile raises for a damaged archive.

    """
    return zipfile.ZipFile(_GuardedFile(file, limit))


class _GuardedFile(io.BufferedIOBase):
    """The file `file`, which refuses to read over `limit` bytes at once."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.limit = file, limit
        self.size = file.seek(0, os.SEEK_END)
        self.seek, self.tell = file.seek, file.tell  # type: ignore[method-assign]

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or up to the end."""
        wanted = self.size - self.tell() if size is None or size < 0 else size
        if wanted > self.limit:
            raise LongDirectoryError(f"a table of contents of over {self.limit // 2**20} MiB")
        return self.file.read(wanted)

    def seekable(self) -> bool:
        """Return True."""
        return True
