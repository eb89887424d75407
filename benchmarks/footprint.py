"""Seconds and peak memory of whole commands, each in a process of its own, without a reference.

    python -m benchmarks.footprint [--npz cifar10.npz] [--threads 1]

Without --npz: one training and one AutoAttack (n = 250) on digits. With it, also one epoch of
wrn-10-1 with PGD-10 on those images. Prints JSON; other load on the machine affects the figures.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.harness.processes import measure_process

TRAINING = "train digits --method at"
ATTACK = "attack checkpoints/digits-small-cnn-at-seed0/best.pt --n 250"
EPOCH = "--arch wrn-10-1 --method at --epochs 1"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npz", type=Path, help="real images, for one epoch of training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    commands = [TRAINING.split(), ATTACK.split()]
    if options.npz:
        commands.append(["train", str(options.npz.resolve()), *EPOCH.split()])
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for command in commands:
            sample = measure_process(
                ["-m", "adrbench", *command], directory=Path(directory), threads=options.threads
            )
            rows.append(
                {
                    "command": " ".join(command),
                    "seconds": round(sample.wall_seconds, 1),
                    "peak_mib": round(sample.peak_mib),
                }
            )
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": options.threads}
    sys.stdout.write(json.dumps({"hardware": hardware, "measured": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
