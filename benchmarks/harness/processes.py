"""Timing of whole processes: wall seconds, user seconds, and peak memory of each."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness.timing import Comparison, Timing, interleave

ROOT = Path(__file__).resolve().parents[2]
MEASURE_CHILD = Path(__file__).with_name("measure_child.py")
#: Linux counts peak memory in KiB, macOS in bytes.
UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
#: The rows of a comparison, and the attribute of ProcessSample that each is made from.
CLOCKS = {"by the clock": "wall_seconds", "processor, user": "user_seconds"}
#: The difference of two times may be zero or negative; this is shown instead.
MIN_SECONDS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """One run of a process; `user_seconds` is its CPU time in user mode."""

    wall_seconds: float
    user_seconds: float
    peak_mib: float


def measure_process(
    arguments: Sequence[str], *, directory: Path = ROOT, threads: int | None = None
) -> ProcessSample:
    """Run Python with `arguments` in `directory`, discarding its stdout.

    Raises:
        SystemExit: when it fails.

    """
    done = subprocess.run(
        [sys.executable, "-S", str(MEASURE_CHILD), sys.executable, *arguments],
        cwd=directory,
        env=environment(threads),
        capture_output=True,
        text=True,
        check=True,
    )
    status, wall_seconds, user_seconds, peak = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{done.stderr}python {' '.join(arguments)} failed")
    return ProcessSample(
        wall_seconds=wall_seconds,
        user_seconds=user_seconds,
        peak_mib=round(peak / UNITS_PER_MIB, 1),
    )


def environment(threads: int | None = None) -> dict[str, str]:
    """Return the environment of a process that imports this checkout and uses `threads`."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **limit}


def sample_processes(
    commands: Mapping[str, Sequence[str]], *, rounds: int, threads: int | None
) -> dict[str, list[ProcessSample]]:
    """Run each command once unmeasured, then `rounds` times in turn; return samples by name."""
    runs = {
        name: partial(measure_process, arguments, threads=threads)
        for name, arguments in commands.items()
    }
    interleave(runs, 1)
    return interleave(runs, rounds)


def compare_processes(
    samples: Mapping[str, Sequence[ProcessSample]], baseline: Sequence[ProcessSample] = ()
) -> list[Comparison]:
    """Return a row per clock; times of `baseline` are subtracted round by round."""
    rows = []
    for name, clock in CLOCKS.items():
        subtracted = [getattr(sample, clock) for sample in baseline]
        timings = []
        for contender, drawn in samples.items():
            seconds = [getattr(sample, clock) for sample in drawn]
            if subtracted:
                pairs = zip(seconds, subtracted, strict=True)
                seconds = [max(a - b, MIN_SECONDS) for a, b in pairs]
            peak = max(sample.peak_mib for sample in drawn)
            timings.append(Timing(name=contender, samples=tuple(seconds), peak_mib=peak))
        facts = {"taken_off_seconds": subtracted}
        rows.append(Comparison(name=name, contenders=tuple(timings), facts=facts))
    return rows
