"""Parts of a benchmark whose time is limited: each has a limit, and every row is kept at once."""

import contextlib
import gc
import logging
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from adrbench.errors import first_line

#: A signal can be lost, such as in a destructor, so it is repeated after this many seconds.
REPEAT_SECONDS = 10.0
#: Folders in front of a file name.
FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/'\"]+)*/(?=[^\s/'\"]+)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured: the cells of a table, by column, and the figures behind them."""

    name: str
    cells: Mapping[str, str]
    facts: Mapping[str, Any]


#: What a measurement is called, and what makes it.
Measurement = tuple[str, Callable[[], Row]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section of the page: its measurements in order of importance, and its share of the time.

    `compared` says what is compared with what. `share` is relative to those of the other parts.
    """

    name: str
    compared: str
    share: float
    measurements: Callable[[], Iterator[Measurement]]


@dataclass(kw_only=True)
class Section:
    """The rows of a part so far, what could not be measured, and warnings, each one line."""

    name: str
    compared: str
    limit_seconds: float
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    has_failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the section as plain JSON values."""
        return asdict(self)


class OutOfTime(BaseException):
    """The time of a part is over; not an Exception, which measured code may catch."""


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the main thread, which must be the caller's, after `seconds`.

    A call that does not return to Python meanwhile, such as one that waits for a GPU, delays it.
    """

    def interrupt(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_parts(
    parts: Sequence[Part],
    *,
    seconds: float,
    device: torch.device,
    save: Callable[[Sequence[Section]], None],
) -> list[Section]:
    """Run the parts in turn within `seconds`; `save` receives all sections after every row.

    A part is stopped when its share of the time, and what earlier parts left of theirs, is over;
    it is not started if nothing is left. A measurement that raises is reported on stderr and as a
    problem of its section, and the next one follows.
    """
    began = time.perf_counter()
    total, until = sum(part.share for part in parts), 0.0
    sections: list[Section] = []
    for part in parts:
        until += part.share / total * seconds
        limit = max(0.0, until - (time.perf_counter() - began))
        section = Section(name=part.name, compared=part.compared, limit_seconds=round(limit, 1))
        sections.append(section)
        if limit == 0:
            section.problems.append("Not started, since no time was left.")
        else:
            with noting_warnings(section):
                run_part(part, section, limit, device=device, save=lambda: save(sections))
        save(sections)
    return sections


def run_part(
    part: Part,
    section: Section,
    limit: float,
    *,
    device: torch.device,
    save: Callable[[], None],
) -> None:
    """Run a part for at most `limit` seconds, adding its rows and problems to `section`."""
    began = time.perf_counter()
    name = part.name
    try:
        with limited_to(limit):
            for name, measure in part.measurements():
                try:
                    row = measure()
                    section.rows.append(row)
                    print_now(f"{part.name}: {render_row(row)}")
                except Exception as error:  # one that is out of memory does not affect the others
                    report(section, name, error)
                release_memory(device)
                section.seconds = round(time.perf_counter() - began, 1)
                save()
            name = ""
    except OutOfTime:
        section.problems.append(f"Stopped at its limit of {limit:.0f} s{name and f', in {name}'}.")
        print_now(f"{part.name}: {section.problems[-1]}")
    except Exception as error:
        report(section, name, error)
    section.seconds = round(time.perf_counter() - began, 1)
    release_memory(device)


def report(section: Section, name: str, error: Exception) -> None:
    """Add an exception to the problems of a section, and print its traceback to stderr."""
    traceback.print_exception(error)
    text = f"{name} raised {type(error).__name__}: {without_folders(first_line(error))}."
    section.problems.append(text)
    section.has_failed = True


def without_folders(text: str) -> str:
    """Return a text with the names of files instead of their paths."""
    return FOLDERS.sub("", text)


@contextlib.contextmanager
def noting_warnings(section: Section) -> Iterator[None]:
    """Add the warnings of adrbench to the problems of a section, each once, besides showing them.

    They say, for example, that a step runs without a CUDA graph.
    """

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = without_folders(" ".join(record.getMessage().split()))
            print_now(f"{section.name}: {text}")
            if text not in section.problems:
                section.problems.append(text)

    logger, handler = logging.getLogger("adrbench"), Noting(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def release_memory(device: torch.device) -> None:
    """Return the memory of objects that are no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def render_row(row: Row) -> str:
    """Return a row on one line."""
    return ", ".join(" ".join(filter(None, cell)) for cell in row.cells.items())


def print_now(line: str) -> None:
    """Print a line to stdout at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
