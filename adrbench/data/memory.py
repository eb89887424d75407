"""A check that an array fits into memory before it is allocated."""

import math
import os

import numpy as np

from adrbench.errors import DataError


def check_memory(num_bytes: int, what: str) -> None:
    """Raise DataError unless `what`, which takes `num_bytes` bytes, fits into memory.

    The operating system may overcommit memory, and then kill the process that uses it.
    """
    try:
        if num_bytes > total_memory():
            raise MemoryError
        np.empty(num_bytes, np.uint8)
    except (MemoryError, ValueError) as error:
        raise DataError(
            f"{what} would take {num_bytes / 2**30:.1f} GiB, which does not fit into memory: "
            "give fewer or smaller images."
        ) from error


def total_memory() -> float:
    """Return the memory of this machine in bytes; infinity where that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
