"""Seconds and peak memory of whole commands, each in a process of its own.

    python -m benchmarks.footprint [--npz cifar10.npz] [--threads 1]

Without --npz: one AutoAttack on digits, n = 250. With it, also one epoch of wrn-10-1 with PGD-10 on
those images. Prints JSON; figures are of this machine and of whatever else it was doing.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.processes import run_process


def measure(directory: str, threads: int, *arguments: str) -> dict[str, object]:
    """Run `adrbench` with `arguments`; return its seconds and its peak memory in MiB."""
    sample = run_process(
        ["-m", "adrbench", *arguments],
        directory=Path(directory),
        threads=threads,
    )
    return {
        "command": " ".join(arguments),
        "seconds": round(sample.wall_seconds, 1),
        "peak_mib": round(sample.peak_mib),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npz", help="real images, for one epoch of adversarial training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = "checkpoints/digits-small-cnn-at-seed0"
        rows = [
            measure(directory, options.threads, "train", "digits", "--method", "at"),
            measure(directory, options.threads, "attack", f"{run}/best.pt", "--n", "250"),
        ]
        if options.npz:
            images = os.path.abspath(options.npz)
            line = ("train", images, "--arch", "wrn-10-1", "--method", "at", "--epochs", "1")
            rows.append(measure(directory, options.threads, *line))
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": options.threads}
    json.dump({"hardware": hardware, "measured": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
