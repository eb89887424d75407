"""Running out of memory, answered with what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adrbench.errors import AdrbenchError

#: How PyTorch's allocator of host memory begins its error.
NO_HOST_MEMORY = "DefaultCPUAllocator: can't allocate memory"


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """Turn a lack of memory for a batch of `batch_size` into an AdrbenchError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_memory and NO_HOST_MEMORY not in str(error):
            raise
        instead = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --arch"
        raise AdrbenchError(
            f"there is not enough memory for a batch of {batch_size}: give {instead}, or another "
            "--device; what was saved before is kept."
        ) from error
