"""The processes that share a piece of work: one, or as many as torchrun started.

Whoever works in a process_group says what is shared and what is agreed on; with one process nothing
happens. Every process has to make the same calls in the same order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed

from adrbench.errors import LostProcessError, first_line

T = TypeVar("T")


class ProcessGroup(Protocol):
    """Processes numbered by `rank` from 0 to `size` - 1."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process speaks and writes for all."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors, alike on all processes, by their mean over them."""

    def maximum(self, value: int) -> int:
        """Return the largest `value` that a process gave."""

    def all_true(self, mask: Tensor) -> Tensor:
        """Return where all processes have True in a boolean tensor on the CPU."""

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, by rank."""

    def broadcast(self, value: T) -> T:
        """Return the value that the first process gave."""

    def distribute(self, items: Sequence[T]) -> Iterator[T]:
        """Yield the items, the same on all processes, that this one should work on.

        Each goes to one process, as soon as that one asks for it.
        """

    def barrier(self) -> None:
        """Wait until every process is here."""


class SingleProcess:
    """A single process."""

    rank = 0
    size = 1
    is_rank_zero = True

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""

    def maximum(self, value: int) -> int:
        """Return `value`."""
        return value

    def all_true(self, mask: Tensor) -> Tensor:
        """Return `mask`."""
        return mask

    def gather(self, value: T) -> list[T]:
        """Return the value alone."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def distribute(self, items: Sequence[T]) -> Iterator[T]:
        """Yield every item."""
        return iter(items)

    def barrier(self) -> None:
        """Do nothing."""


SINGLE_PROCESS: ProcessGroup = SingleProcess()


class DistributedGroup:
    """The processes that torchrun started, talking through torch.distributed.

    Tensors on GPUs are averaged by NCCL, everything else goes over gloo. NCCL does not say where
    another process is gone; the next message over gloo does.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.is_rank_zero = rank == 0
        self._store = store
        self._shared = 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average all tensors in one message, in the widest type among them."""
        dtype = torch.float32
        for tensor in tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        flat = torch.cat([tensor.detach().flatten().to(dtype) for tensor in tensors])
        with lost_peers_reported():
            distributed.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def maximum(self, value: int) -> int:
        """Take the maximum, between the hosts: no GPU is waited for."""
        held = torch.tensor(value)
        with lost_peers_reported():
            distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return int(held)

    def all_true(self, mask: Tensor) -> Tensor:
        """Take the minimum."""
        held = mask.to(torch.uint8)
        with lost_peers_reported():
            distributed.all_reduce(held, distributed.ReduceOp.MIN)
        return held.bool()

    def gather(self, value: T) -> list[T]:
        """Send everything to everybody."""
        values: list[Any] = [None] * self.size
        with lost_peers_reported():
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Send it to everybody."""
        held: list[Any] = [value]
        with lost_peers_reported():
            distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        first: T = held[0]
        return first

    def distribute(self, items: Sequence[T]) -> Iterator[T]:
        """Draw tickets from a counter that the processes share."""
        self._shared += 1
        counter = f"adrbench shared {self._shared}"
        while True:
            with lost_peers_reported():
                ticket = self._store.add(counter, 1) - 1
            if ticket >= len(items):
                return
            yield items[ticket]

    def barrier(self) -> None:
        """Agree on nothing."""
        self.maximum(0)


def same_on_all_ranks(process_group: ProcessGroup, value: object) -> bool:
    """Tell whether all processes have the same `value`."""
    return all(other == value for other in process_group.gather(value))


@contextmanager
def lost_peers_reported() -> Iterator[None]:
    """Turn the loss of another process into an error of ours."""
    try:
        yield
    except RuntimeError as error:
        where, bracket, reason = first_line(error).rpartition("] ")
        reason = reason if bracket and where.startswith("[") else first_line(error)
        raise LostProcessError(
            f"another process of this run is gone ({reason.partition('. ')[0]}): torchrun starts "
            "all of them again if --max-restarts allows it, else the same command goes on from "
            "the last save."
        ) from error
