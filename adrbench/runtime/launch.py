"""Joining the processes that torchrun started, and choosing the one that reports an error."""

import contextlib
import hashlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from adrbench.errors import AdrbenchError, LostProcessError, first_line
from adrbench.runtime.context import Context
from adrbench.runtime.devices import choose_device
from adrbench.runtime.process_group import SINGLE_PROCESS, DistributedGroup, ProcessGroup
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.runtime.torchrun import check_launcher, is_launched, local_rank, was_restarted

#: How long processes wait for each other to join.
JOIN_TIMEOUT = timedelta(minutes=10)
#: How long they wait without saying so.
SILENT_SECONDS = 10
POLL_SECONDS = 0.02
RANK_ZERO_HEAD_START_SECONDS = 0.5
#: How long a collective waits for the other ranks, which may have a long batch of an attack to
#: finish. A rank that has exited is noticed at once, by its closed connections and by torchrun.
COLLECTIVE_TIMEOUT = timedelta(days=1)


def is_restarted(process_group: ProcessGroup) -> bool:
    """Return whether torchrun or SLURM, not the user, started this command again."""
    return bool(process_group.all_reduce_max(int(was_restarted())))


@contextmanager
def joined_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, each computing on a device of this kind.

    An error or interruption that several ranks raise is reported by one of them (see
    `AdrbenchError.is_reported`). The group is not destroyed at the end, since that would require
    all ranks; it exits with the process.

    Raises:
        AdrbenchError: when the processes cannot connect to each other.

    """
    if not is_launched():
        yield SINGLE_PROCESS
        return
    try:
        store, rank, size = meet()
        store = PrefixStore(agree_on_prefix(store, rank, size), store)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise AdrbenchError(
            f"the processes cannot connect to each other ({first_line(error)}): check torchrun's "
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
        error.is_reported = not claim_report(store, rank, error)
        raise


def meet() -> tuple[Any, int, int]:
    """Return the store of the processes that torchrun started, this one's rank and their number.

    The wait for the others, on a thread of its own, can be interrupted, which torch's cannot.

    Raises:
        RuntimeError, ValueError: when not all ranks connect within `JOIN_TIMEOUT`.

    """
    outcomes: SimpleQueue[tuple[Any, int, int] | Exception] = SimpleQueue()

    def connect() -> None:
        try:
            outcomes.put(next(rendezvous("env://", timeout=JOIN_TIMEOUT)))
        except Exception as error:  # raised again by the main thread
            outcomes.put(error)

    Thread(target=connect, daemon=True).start()
    try:
        outcome = outcomes.get(timeout=SILENT_SECONDS)
    except Empty:
        if local_rank() == 0:
            sys.stderr.write(f"{describe_wait()}\n")
        outcome = outcomes.get()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def describe_wait() -> str:
    """Return the note on a wait for other processes, which one rank of each machine prints."""
    rank, size, address, port = (
        os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    )
    minutes = int(JOIN_TIMEOUT.total_seconds() / 60)
    return (
        f"note: rank {rank} (RANK) of {size} (WORLD_SIZE) waits up to {minutes} minutes for the "
        f"other processes at {address}:{port} (MASTER_ADDR, MASTER_PORT)."
    )


@contextmanager
def open_context(device: str) -> Iterator[Context]:
    """Provide the context of a command: its device, its process group, and handled signals.

    Raises:
        UsageError: for a device that does not exist (see `choose_device`).
        AdrbenchError: when the processes cannot connect to each other.

    """
    check_launcher()
    chosen, stop = choose_device(device, local_rank()), StopRequest()
    with joined_process_group(chosen) as process_group, stop.handling_signals():
        yield Context(device=chosen, process_group=process_group, stop=stop)


@contextmanager
def rank_zero_first(process_group: ProcessGroup) -> Iterator[None]:
    """Let rank 0 run the context before the others, for example to download files for them."""
    if not process_group.is_rank_zero:
        process_group.barrier()
    yield
    if process_group.is_rank_zero:
        process_group.barrier()


def claim_report(store: Any, rank: int, error: AdrbenchError) -> bool:
    """Return whether this rank is the first to raise `error`, and so the one that reports it.

    Two LostProcessErrors count as the same error, regardless of their messages. Rank 0 gets a head
    start, because it has a display to close before another rank prints.
    """
    if rank:
        time.sleep(RANK_ZERO_HEAD_START_SECONDS)
    text = "" if isinstance(error, LostProcessError) else str(error)
    with contextlib.suppress(RuntimeError):  # the store may have exited with its process
        return bool(store.add(f"reported {type(error).__name__} {text}", 1) == 1)
    return True


def agree_on_prefix(store: Any, rank: int, size: int) -> str:
    """Return a prefix for keys in the store that only the currently running processes use.

    A store persists when processes are restarted, and keeps what they wrote, in particular their
    addresses. Each process therefore writes its own identifier, rank 0 publishes the list of those
    it finds until every rank has found its own in the list, and the prefix is a hash of the list.

    Raises:
        RuntimeError: when not all ranks join within `JOIN_TIMEOUT`.

    """

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    own = uuid.uuid4().hex
    store.set(f"process {rank}", own)
    deadline = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        if rank == 0:
            found = [read(f"process {other}") or "-" for other in range(size)]
            store.set("processes", " ".join(found))
        listed = read("processes")
        if own in listed.split():
            store.set(f"seen {rank}", listed)
            if rank == 0 and all(read(f"seen {other}") == listed for other in range(size)):
                store.set("complete", listed)
            if read("complete") == listed:
                return f"adrbench {hashlib.sha256(listed.encode()).hexdigest()}"
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"not all of {size} processes joined within {JOIN_TIMEOUT}")
