"""How the processes that torchrun started find each other, and which of them speaks."""

import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from adrbench.errors import AdrbenchError, LostProcessError, first_line
from adrbench.runtime.process_group import SINGLE_PROCESS, DistributedGroup, ProcessGroup
from adrbench.runtime.signals import Interrupted
from adrbench.runtime.torchrun import is_launched, was_restarted

#: How long processes look for each other.
JOINING = timedelta(minutes=10)
LOOK_AGAIN_SECONDS = 0.02
FIRST_GOES_FIRST_SECONDS = 0.5
#: How long one waits for the others, who may have a long batch of an attack to finish. One that
#: died is noticed at once by its connections, and by torchrun.
WORKING = timedelta(days=1)


def is_restarted(process_group: ProcessGroup) -> bool:
    """Tell whether this is the same command again, given by torchrun or SLURM, not by the user."""
    return bool(process_group.maximum(int(was_restarted())))


@contextmanager
def joined_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Be one of the processes that torchrun started, each computing on a device of this kind.

    Of errors and interruptions that several meet, one tells (see `AdrbenchError.is_reported`). What
    connects them is not taken down, since not all may be there to do it: it ends with the process.

    Raises:
        AdrbenchError: when the processes do not find each other.

    """
    if not is_launched():
        yield SINGLE_PROCESS
        return
    try:
        store, rank, size = next(rendezvous("env://", timeout=JOINING))
        store = PrefixStore(meet(store, rank, size), store)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=WORKING,
        )
    except (RuntimeError, ValueError) as error:
        raise AdrbenchError(
            f"the processes do not find each other ({first_line(error)}): check torchrun's "
            "--nnodes, --nproc-per-node and --rdzv-endpoint."
        ) from error
    try:
        process_group = DistributedGroup(store, rank, size)
        yield process_group
        process_group.barrier()
    except Interrupted as interruption:
        interruption.is_reported = rank > 0
        raise
    except AdrbenchError as error:
        error.is_reported = not reports_first(store, rank, error)
        raise


@contextmanager
def rank_zero_first(process_group: ProcessGroup) -> Iterator[None]:
    """Let rank 0 run the context before the others, such as to download what they then find."""
    if not process_group.is_rank_zero:
        process_group.barrier()
    yield
    if process_group.is_rank_zero:
        process_group.barrier()


def reports_first(store: Any, rank: int, error: AdrbenchError) -> bool:
    """Tell whether no other process has met the same error, or the same loss of one.

    The first process goes first: it has a display to close before others print.
    """
    if rank:
        time.sleep(FIRST_GOES_FIRST_SECONDS)
    lost = isinstance(error, LostProcessError)
    with contextlib.suppress(RuntimeError):  # the store may be gone, too
        return bool(store.add(f"told {type(error).__name__} {'' if lost else error}", 1) == 1)
    return True


def meet(store: Any, rank: int, size: int) -> str:
    """Return a name for what these processes say to each other, and none that are gone.

    A store outlives processes that are started again, with all they left in it: their addresses,
    above all. So each writes a name of its own for this life, the first one lists those it finds
    until all have found theirs in the list, and the list gives the name.

    Raises RuntimeError when not all come.
    """

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    own = uuid.uuid4().hex
    store.set(f"life {rank}", own)
    latest = time.monotonic() + JOINING.total_seconds()
    while time.monotonic() < latest:
        if rank == 0:
            lives = [read(f"life {other}") or "-" for other in range(size)]
            store.set("lives", " ".join(lives))
        listed = read("lives")
        if own in listed.split():
            store.set(f"seen {rank}", listed)
            if rank == 0 and all(read(f"seen {other}") == listed for other in range(size)):
                store.set("complete", listed)
            if read("complete") == listed:
                return f"adrbench {hashlib.sha256(listed.encode()).hexdigest()}"
        time.sleep(LOOK_AGAIN_SECONDS)
    raise RuntimeError(f"not all of {size} came within {JOINING}")
