"""Timing: contenders take turns, and each row compares ours with the references.

Ours and a reference run in the same process, one after the other in every round, so that whatever
else the machine does meets both. Figures are medians over rounds; all samples are kept.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch

from benchmarks.memory import PeakMemory

#: A sample shorter than this is mostly noise, so a contender then works several times in one.
SAMPLE_SECONDS = 0.2

Sample = TypeVar("Sample")
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do some work: `build` returns what is timed, which works at every call.

    It works `warmup` times before it is timed; with 0 it is taken to have warmed itself up, and
    to be long enough for a sample of its own.
    """

    name: str
    build: Callable[[], Work]
    warmup: int = 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds per call of one contender, a sample a round, and its peak memory in MiB.

    `calls` is how often it worked within one sample. `reserved_mib` is, on a GPU, by how much the
    memory grew that PyTorch holds, used or not.
    """

    name: str
    samples: tuple[float, ...]
    calls: int = 1
    peak_mib: float | None = None
    reserved_mib: float | None = None

    @property
    def median(self) -> float:
        """The median sample."""
        return median(self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain JSON values."""
        return {
            "name": self.name,
            "median_seconds": self.median,
            "min_seconds": min(self.samples),
            "max_seconds": max(self.samples),
            "samples_seconds": list(self.samples),
            "calls_per_sample": self.calls,
            "peak_mib": self.peak_mib,
            "reserved_mib": self.reserved_mib,
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: ours, then the reference of the headline ratio, then any others.

    `shown` are further cells of the printed table, by column; `facts` go into the JSON alone.
    """

    name: str
    contenders: tuple[Measured, ...]
    shown: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Return, by reference, its median seconds over ours."""
        ours, *references = self.contenders
        return {reference.name: reference.median / ours.median for reference in references}

    def round_ratios(self) -> list[float]:
        """Return the headline ratio of each round by itself."""
        ours, reference, *_ = self.contenders
        return [b / a for a, b in zip(ours.samples, reference.samples, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        ratios = self.ratios()
        each = self.round_ratios()
        return {
            "name": self.name,
            "ratio": next(iter(ratios.values())),
            "ratios": ratios,
            "round_ratios": each,
            "round_ratio_min": min(each),
            "round_ratio_max": max(each),
            "contenders": [contender.to_json() for contender in self.contenders],
            "shown": dict(self.shown),
            "facts": dict(self.facts),
        }


def compare(
    contenders: Sequence[Contender], *, rounds: int, device: torch.device
) -> dict[str, Measured]:
    """Build and warm up every contender, then time them in turn; return the figures by name.

    The peak memory is that of building, warming up and the first sample. On the CPU one contender
    is built and used before that, so that none is charged with what is loaded on first use.
    """
    if device.type == "cpu":
        first = contenders[0].build()
        for _ in range(min(1, contenders[0].warmup)):
            first()
        del first
    entries = {contender.name: Entry(contender, device) for contender in contenders}
    take_turns({name: entry.draw for name, entry in entries.items()}, rounds)
    return {name: entry.summarise() for name, entry in entries.items()}


class Entry:
    """A contender that is being timed: built and warmed up when its first turn comes."""

    def __init__(self, contender: Contender, device: torch.device) -> None:
        self.contender = contender
        self.device = device
        self.samples: list[float] = []
        self.calls = 1

    def draw(self) -> None:
        """Take one sample."""
        if self.samples:
            self.samples.append(time_calls(self.work, self.calls, self.device))
            return
        with PeakMemory(self.device) as self.peak:
            self.work: Work = self.contender.build()
            for _ in range(self.contender.warmup):
                seconds = time_calls(self.work, 1, self.device)
                self.calls = math.ceil(SAMPLE_SECONDS / seconds)
            self.samples.append(time_calls(self.work, self.calls, self.device))

    def summarise(self) -> Measured:
        """Return the figures of all samples."""
        return Measured(
            name=self.contender.name,
            samples=tuple(self.samples),
            calls=self.calls,
            peak_mib=self.peak.peak_mib,
            reserved_mib=self.peak.reserved_mib,
        )


def take_turns(
    samplers: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, list[Sample]]:
    """Return `rounds` samples of each, drawn in turn: A, B, A, B, ..."""
    samples: dict[str, list[Sample]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            samples[name].append(sample())
    return samples


def time_calls(work: Work, calls: int, device: torch.device) -> float:
    """Return the seconds per call of `calls` calls in a row, until the device is done."""
    gc.collect()
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
