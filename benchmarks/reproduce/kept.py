"""Weights worth keeping, in half precision.

    python -m benchmarks.reproduce.kept RUN_DIRECTORY FILE

writes the averaged weights of a run at its best epoch to FILE, as a checkpoint of a run of their
own: rounding makes them other weights, whose records are not those of the run.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints.format import BEST, load, save
from adrbench.errors import CheckpointError
from benchmarks import page

AVERAGE = "average"


def keep(run: Path, file: Path) -> None:
    """Write the average of `run` at its best epoch to `file`, named after it, in float16.

    Raises:
        CheckpointError: when the run's best checkpoint cannot be read, or holds no average.

    """
    checkpoint = load(run / BEST)
    if AVERAGE not in checkpoint.snapshots:
        raise CheckpointError(f"{run} has no averaged weights to keep.")
    average = checkpoint.snapshots[AVERAGE]
    halves = {name: _halve(value) for name, value in average.state.items()}
    kept = {AVERAGE: replace(average, state=halves)}
    save(file, replace(checkpoint, run=file.stem, snapshots=kept))


def _halve(value: Any) -> Any:
    return value.to(torch.float16) if torch.is_floating_point(value) else value


def main() -> None:
    """Keep what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    keep(options.run, options.file)


if __name__ == "__main__":
    page.run(main)
