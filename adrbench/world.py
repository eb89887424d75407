"""The processes that share a piece of work: one, or as many as torchrun started.

Whoever works in a world says what is shared and what is agreed on; with one process nothing
happens. Every process has to make the same calls in the same order.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from adrbench.errors import AdrbenchError, LostProcessError
from adrbench.notes import first_line

T = TypeVar("T")

#: What torchrun tells each process it starts.
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: How long one process waits for the others, who may have a long batch of an attack to finish. One
#: that died is noticed at once by its connections, and by torchrun.
PATIENCE = timedelta(days=1)


class World(Protocol):
    """Processes numbered by `rank` from 0 to `size` - 1."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def size(self) -> int:
        """How many there are."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors, alike on all processes, by their mean over them."""

    def highest(self, value: int) -> int:
        """Return the largest `value` that a process gave."""

    def agreed(self, mask: Tensor) -> Tensor:
        """Return where all processes have True in a boolean tensor on the CPU."""

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, by rank."""

    def from_first(self, value: T) -> T:
        """Return the value that the first process gave."""

    def share_out(self, items: Sequence[T]) -> Iterator[T]:
        """Yield the items, the same on all processes, that this one should work on.

        Each goes to one process, as soon as that one asks for it.
        """

    def wait(self) -> None:
        """Wait until every process is here."""


class Alone:
    """A single process."""

    rank = 0
    size = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""

    def highest(self, value: int) -> int:
        """Return `value`."""
        return value

    def agreed(self, mask: Tensor) -> Tensor:
        """Return `mask`."""
        return mask

    def gather(self, value: T) -> list[T]:
        """Return the value alone."""
        return [value]

    def from_first(self, value: T) -> T:
        """Return the value."""
        return value

    def share_out(self, items: Sequence[T]) -> Iterator[T]:
        """Yield every item."""
        return iter(items)

    def wait(self) -> None:
        """Do nothing."""


ALONE: World = Alone()


class Together:
    """The processes that torchrun started, talking through torch.distributed.

    Tensors on GPUs are averaged by NCCL, everything else goes over gloo.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self._shared = 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average all tensors in one message, in the widest type among them."""
        dtype = torch.float32
        for tensor in tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        flat = torch.cat([tensor.detach().flatten().to(dtype) for tensor in tensors])
        with reported():
            distributed.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def highest(self, value: int) -> int:
        """Take the maximum, between the hosts: no GPU is waited for."""
        held = torch.tensor(value)
        with reported():
            distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return int(held)

    def agreed(self, mask: Tensor) -> Tensor:
        """Take the minimum."""
        held = mask.to(torch.uint8)
        with reported():
            distributed.all_reduce(held, distributed.ReduceOp.MIN)
        return held.bool()

    def gather(self, value: T) -> list[T]:
        """Send everything to everybody."""
        values: list[Any] = [None] * self.size
        with reported():
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Send it to everybody."""
        held: list[Any] = [value]
        with reported():
            distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        first: T = held[0]
        return first

    def share_out(self, items: Sequence[T]) -> Iterator[T]:
        """Draw tickets from a counter that the processes share."""
        self._shared += 1
        counter = f"adrbench shared {self._shared}"
        while True:
            with reported():
                ticket = self._store.add(counter, 1) - 1
            if ticket >= len(items):
                return
            yield items[ticket]

    def wait(self) -> None:
        """Agree on nothing."""
        self.highest(0)


@contextmanager
def reported() -> Iterator[None]:
    """Turn the loss of another process into an error of ours."""
    try:
        yield
    except RuntimeError as error:
        where, bracket, reason = first_line(error).rpartition("] ")
        reason = reason if bracket and where.startswith("[") else first_line(error)
        raise LostProcessError(
            f"another process of this run is gone ({reason.partition('. ')[0]}): torchrun starts "
            "all of them again with --max-restarts, and the same command goes on from the last "
            "save."
        ) from error


def is_launched() -> bool:
    """Tell whether torchrun, or something that sets what it sets, started this process."""
    return all(name in os.environ for name in LAUNCHED) and os.environ["WORLD_SIZE"] != "1"


def local_rank() -> int | None:
    """Return the number of this process on its machine, None for one that is alone."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else None


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Be one of the processes that torchrun started, each computing on a device of this kind.

    Raises:
        AdrbenchError: when the processes do not find each other.

    """
    if not is_launched():
        yield ALONE
        return
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # What processes that are gone left in the store, addresses above all, is not for us.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"adrbench attempt {attempt}", store)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise AdrbenchError(
            f"the processes do not find each other ({first_line(error)}): check torchrun's "
            "--nnodes, --nproc-per-node and --rdzv-endpoint."
        ) from error
    try:
        yield Together(store, rank, size)
    finally:
        distributed.destroy_process_group()
