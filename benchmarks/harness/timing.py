"""Timing: contenders take turns in one process, and a comparison relates ours to references.

Ours and a reference run one after the other in every round, so that other load on the machine
affects both. Figures are medians over rounds; all samples are kept.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch

from benchmarks.harness.memory import PeakMemory

#: Shorter samples are mostly noise, so one sample then consists of several calls.
SAMPLE_SECONDS = 0.2

Sample = TypeVar("Sample")
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do some work: `build` returns the function to time.

    It is called `warmup` times before it is timed. With 0, `build` has warmed it up, and one call
    is one sample.
    """

    name: str
    build: Callable[[], Work]
    warmup: int = 1


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per call of one contender, a sample per round, and its peak memory in MiB.

    A sample is the mean of `calls` calls. On a GPU, `reserved_mib` is the growth of the memory that
    PyTorch reserves.
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
class Comparison:
    """One row: ours, then the reference of the headline ratio, then any other references.

    `shown` are further cells of the printed table, by column; `facts` are in the JSON only.
    """

    name: str
    contenders: tuple[Timing, ...]
    shown: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values, its ratios being reference over ours."""
        ours, *references = self.contenders
        ratios = {reference.name: reference.median / ours.median for reference in references}
        by_round = [b / a for a, b in zip(ours.samples, references[0].samples, strict=True)]
        return {
            "name": self.name,
            "ratio": ratios[references[0].name],
            "ratios": ratios,
            "round_ratios": by_round,
            "round_ratio_min": min(by_round),
            "round_ratio_max": max(by_round),
            "contenders": [contender.to_json() for contender in self.contenders],
            "shown": dict(self.shown),
            "facts": dict(self.facts),
        }


def compare(
    contenders: Sequence[Contender], *, rounds: int, device: torch.device
) -> dict[str, Timing]:
    """Build and warm up every contender, then time them in turn; return the timings by name.

    Peak memory covers building, warming up and the first sample. On the CPU one contender is built
    and called before that, so that none is charged for what is loaded on first use.
    """
    if device.type == "cpu":
        work = contenders[0].build()
        if contenders[0].warmup:
            work()
        del work
    samplers = {contender.name: Sampler(contender, device) for contender in contenders}
    samples = interleave({name: sampler.draw for name, sampler in samplers.items()}, rounds)
    return {
        name: Timing(
            name=name,
            samples=tuple(samples[name]),
            calls=sampler.calls,
            peak_mib=sampler.peak.peak_mib,
            reserved_mib=sampler.peak.reserved_mib,
        )
        for name, sampler in samplers.items()
    }


class Sampler:
    """Times a contender, which it builds and warms up with the first sample."""

    def __init__(self, contender: Contender, device: torch.device) -> None:
        self.contender, self.device = contender, device
        self.calls = 1
        self.work: Work | None = None

    def draw(self) -> float:
        """Return one sample, seconds per call."""
        if self.work is not None:
            return time_calls(self.work, self.calls, self.device)
        with PeakMemory(self.device) as self.peak:
            self.work = self.contender.build()
            for _ in range(self.contender.warmup):
                seconds = time_calls(self.work, 1, self.device)
                self.calls = math.ceil(SAMPLE_SECONDS / seconds)
            return time_calls(self.work, self.calls, self.device)


def interleave(
    samplers: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, list[Sample]]:
    """Return `rounds` samples of each sampler, drawn in turn: A, B, A, B, ..."""
    samples: dict[str, list[Sample]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            samples[name].append(sample())
    return samples


def time_calls(work: Work, calls: int, device: torch.device) -> float:
    """Return the seconds per call of `calls` calls in a row, including the device's work."""
    gc.collect()
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
