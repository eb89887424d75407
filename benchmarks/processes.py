"""Whole processes: seconds by the clock, seconds of processor time, and peak memory of each."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Measured, Row

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = Path(__file__).with_name("launcher.py")
#: Linux counts peak memory in KiB, macOS in bytes.
PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
#: How rows are called -> which seconds of a process they are made of.
CLOCKS = {"by the clock": "wall_seconds", "processor, user": "user_seconds"}
#: A difference of two times may come out at nothing.
SHORTEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """One run of a process; `user_seconds` is its processor time in user mode."""

    wall_seconds: float
    user_seconds: float
    peak_mib: float


def run_process(
    arguments: Sequence[str], *, directory: Path = ROOT, threads: int | None = None
) -> ProcessSample:
    """Run Python with `arguments` in `directory`, with this checkout's adrbench within reach.

    What it prints to stdout is dropped.

    Raises:
        SystemExit: when it fails.

    """
    done = subprocess.run(
        [sys.executable, "-S", str(LAUNCHER), sys.executable, *arguments],
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
        wall_seconds=wall_seconds, user_seconds=user_seconds, peak_mib=round(peak / PER_MIB, 1)
    )


def environment(threads: int | None = None) -> dict[str, str]:
    """Return the variables of a process: this checkout within reach, so many threads."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    share = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **share}


def make_rows(
    samples: Mapping[str, Sequence[ProcessSample]], bare: Sequence[ProcessSample] = ()
) -> list[Row]:
    """Return a row for each clock, less the times of `bare` in the same round."""
    return [
        Row(
            name=name,
            contenders=tuple(
                Measured(
                    name=who,
                    samples=take_off(
                        [getattr(sample, clock) for sample in drawn],
                        [getattr(sample, clock) for sample in bare],
                    ),
                    peak_mib=max(sample.peak_mib for sample in drawn),
                )
                for who, drawn in samples.items()
            ),
            facts={"taken_off_seconds": [getattr(sample, clock) for sample in bare]},
        )
        for name, clock in CLOCKS.items()
    ]


def take_off(seconds: Sequence[float], bare: Sequence[float]) -> tuple[float, ...]:
    """Return the seconds less those of `bare`, where there are any."""
    if not bare:
        return tuple(seconds)
    return tuple(max(a - b, SHORTEST) for a, b in zip(seconds, bare, strict=True))
