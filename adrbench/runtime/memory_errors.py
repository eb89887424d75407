"""Out-of-memory errors of any library as one error with advice."""

from collections.abc import Iterator
from contextlib import contextmanager

from adrbench.errors import AdrbenchError, argument, is_out_of_memory


@contextmanager
def explaining_memory_errors(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error for batches of `batch_size` into an AdrbenchError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = f"a smaller {argument('arch')}"
        remedy = argument("batch_size", batch_size // 2) if batch_size > 1 else smaller
        raise AdrbenchError(
            f"there is not enough memory for a batch of {batch_size}: give {remedy}, or another "
            f"{argument('device')}; progress saved so far is kept."
        ) from error
