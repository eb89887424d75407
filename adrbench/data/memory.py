"""A check that an array fits into memory before it is allocated."""

import numpy as np

from adrbench.errors import DataError
from adrbench.runtime.memory import total_memory


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
