"""Out-of-memory errors of any library as one error with advice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adrbench.errors import AdrbenchError

#: The start of the error that PyTorch's CPU allocator raises.
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"


@contextmanager
def explaining_memory_errors(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error for batches of `batch_size` into an AdrbenchError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_out_of_memory and CPU_OUT_OF_MEMORY not in str(error):
            raise
        remedy = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --arch"
        raise AdrbenchError(
            f"there is not enough memory for a batch of {batch_size}: give {remedy}, or another "
            "--device; what was saved before is kept."
        ) from error
