"""Opening a file of weights: one that exists, is a file, is not empty and is no web page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adrbench.errors import CheckpointError
from adrbench.runtime.files import EmptyFileError, open_limited
from adrbench.runtime.memory import total_memory

START_BYTES = 512


@contextmanager
def open_weights(path: Path) -> Iterator[tuple[IO[bytes], bytes]]:
    """Yield the open file, at its start, and its first bytes.

    Raises:
        CheckpointError: when it is missing, a directory, not a regular file, larger than memory,
            empty, a web page, or cannot be read.

    """
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a directory without best.pt or last.pt: name a file.")
        with open_limited(path, total_memory()) as file:
            start = file.read(START_BYTES)
            file.seek(0)
            if start.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
                raise CheckpointError(f"{path} is a web page, not weights: download it again.")
            yield file, start
    except EmptyFileError as error:
        raise CheckpointError(f"{path} is empty: copy or train it again.") from error
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}; give a checkpoint or a state dict."
        ) from error


def size_of(file: IO[bytes]) -> int:
    """Return the size in bytes of an open file."""
    return os.fstat(file.fileno()).st_size
