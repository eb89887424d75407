"""Reading a file in a process of its own, within limits of time and memory."""

import logging
import multiprocessing
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from adrbench.errors import AdrbenchError

SECONDS = 20
BEYOND_TENSORS = 2 * 2**30
#: How a case may end.
HELD = ("read", "refused")


@dataclass(frozen=True)
class Case:
    """A file, or a folder of files, that `make` writes into an empty folder and `read` reads.

    `says` describes what is odd about it.
    """

    says: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]


def outcomes(cases: Iterable[Case], folder: Path) -> Iterator[tuple[Case, str]]:
    """Yield how each case ended: in `HELD`, or a description of what went wrong.

    A process that exceeds a limit is replaced by another for the remaining cases.
    """
    context = multiprocessing.get_context("fork")
    remaining = list(cases)
    while remaining:
        ours, theirs = context.Pipe()
        process = context.Process(target=_try_all, args=(theirs, remaining, folder))
        process.start()
        theirs.close()
        while remaining:
            outcome = _receive(ours)
            yield remaining.pop(0), outcome
            if outcome in ENDED:
                break
        process.kill()
        process.join()


#: The outcomes of a case after which its process is replaced.
ENDED = (f"no end after {SECONDS} s", "the process died")


def _receive(results: Connection) -> str:
    if not results.poll(SECONDS):
        return ENDED[0]
    try:
        return str(results.recv())
    except EOFError:
        return ENDED[1]


def _try_all(results: Connection, cases: list[Case], folder: Path) -> None:
    logging.disable(logging.CRITICAL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + BEYOND_TENSORS
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in cases:
        results.send(_try(case, folder))


def _try(case: Case, folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        case.make(folder)
    except Exception as error:  # a fault of the corpus
        return f"cannot be made: {error!r:.200}"
    before = _contents(folder)
    try:
        case.read(folder)
    except AdrbenchError as error:
        outcome = "refused" if str(error).isprintable() else f"not one line: {error!r:.300}"
    except BaseException as error:
        outcome = f"raised {type(error).__name__}: {error!s:.200}"
    else:
        outcome = "read"
    return outcome if _contents(folder) == before else "changed a file"


def _contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what a change of a file in a folder would change."""
    return {
        str(path): (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        for path in folder.rglob("*")
        for stat in (path.lstat(),)
    }
