"""Process groups: the ranks that share work, one process or as many as torchrun started.

The collectives are those of torch.distributed, with the semantics that training and evaluation
need; with one process they do nothing. Every rank must make the same calls in the same order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed

from adrbench.errors import AdrbenchError, LostProcessError, first_line

T = TypeVar("T")


class ProcessGroup(Protocol):
    """`size` processes, ranked from 0 to `size` - 1."""

    @property
    def rank(self) -> int:
        """The rank of this process."""

    @property
    def size(self) -> int:
        """The number of processes (torch.distributed's world size)."""

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, the only rank that writes files and prints."""

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors, of the same shapes on all ranks, by their mean."""

    def all_reduce_max(self, value: int) -> int:
        """Return the largest `value` of all ranks."""

    def all_reduce_and(self, mask: Tensor) -> Tensor:
        """Return the elementwise AND over all ranks of a boolean tensor on the CPU."""

    def all_gather(self, value: T) -> list[T]:
        """Return the `value` of every rank, in order of rank."""

    def broadcast(self, value: T) -> T:
        """Return the `value` of rank 0."""

    def claim(self, items: Sequence[T]) -> Iterator[T]:
        """Yield the items that this rank should process, out of the same `items` on all ranks.

        Every item is claimed by one rank, whenever that rank is ready for the next one.
        """

    def barrier(self) -> None:
        """Wait until all ranks have called this."""


class SingleProcess:
    """A group of one process: every collective is the identity."""

    rank = 0
    size = 1
    is_rank_zero = True

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""

    def all_reduce_max(self, value: int) -> int:
        """Return `value`."""
        return value

    def all_reduce_and(self, mask: Tensor) -> Tensor:
        """Return `mask`."""
        return mask

    def all_gather(self, value: T) -> list[T]:
        """Return a list of `value` alone."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return `value`."""
        return value

    def claim(self, items: Sequence[T]) -> Iterator[T]:
        """Yield every item."""
        return iter(items)

    def barrier(self) -> None:
        """Do nothing."""


SINGLE_PROCESS: ProcessGroup = SingleProcess()


class DistributedGroup:
    """The processes that torchrun started, connected by torch.distributed's default group.

    Tensors on GPUs are reduced by NCCL, everything else goes over gloo. NCCL does not report that
    another process has exited; the next collective over gloo does.

    Every method raises LostProcessError when another process has exited.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.is_rank_zero = rank == 0
        self._store = store
        self._num_claims = 0

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Average all tensors in one all-reduce, in the widest data type among them."""
        dtype = torch.float32
        for tensor in tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        flat = torch.cat([tensor.detach().flatten().to(dtype) for tensor in tensors])
        with lost_process_errors():
            distributed.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def all_reduce_max(self, value: int) -> int:
        """Take the maximum on the CPU, so that no GPU is waited for."""
        held = torch.tensor(value)
        with lost_process_errors():
            distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return int(held)

    def all_reduce_and(self, mask: Tensor) -> Tensor:
        """Take the minimum."""
        held = mask.to(torch.uint8)
        with lost_process_errors():
            distributed.all_reduce(held, distributed.ReduceOp.MIN)
        return held.bool()

    def all_gather(self, value: T) -> list[T]:
        """Gather the pickled values."""
        values: list[Any] = [None] * self.size
        with lost_process_errors():
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Broadcast the pickled value."""
        held: list[Any] = [value]
        with lost_process_errors():
            distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        first: T = held[0]
        return first

    def claim(self, items: Sequence[T]) -> Iterator[T]:
        """Draw indices from a counter in the store, one counter per call."""
        self._num_claims += 1
        counter = f"adrbench claim {self._num_claims}"
        while True:
            with lost_process_errors():
                index = self._store.add(counter, 1) - 1
            if index >= len(items):
                return
            yield items[index]

    def barrier(self) -> None:
        """Reduce a constant."""
        self.all_reduce_max(0)


def check_on_rank_zero(process_group: ProcessGroup, check: Callable[[], None]) -> None:
    """Call `check` on rank 0, and raise on every rank the AdrbenchError that it raises."""
    found: AdrbenchError | None = None
    if process_group.is_rank_zero:
        try:
            check()
        except AdrbenchError as error:
            found = error
    found = process_group.broadcast(found)
    if found is not None:
        raise found


def same_on_all_ranks(process_group: ProcessGroup, value: object) -> bool:
    """Return whether `value` is equal on all ranks."""
    return all(other == value for other in process_group.all_gather(value))


@contextmanager
def lost_process_errors() -> Iterator[None]:
    """Raise LostProcessError where torch.distributed raises RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        where, bracket, reason = first_line(error).rpartition("] ")
        reason = reason if bracket and where.startswith("[") else first_line(error)
        raise LostProcessError(
            f"another process of this run has exited ({reason.partition('. ')[0]}): torchrun "
            "restarts all processes if --max-restarts allows it; otherwise, run the same command "
            "again to resume from the last save."
        ) from error
