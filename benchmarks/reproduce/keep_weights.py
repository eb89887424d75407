"""Keep the best averaged weights of a run in half precision.

    python -m benchmarks.reproduce.keep_weights RUN_DIRECTORY FILE

FILE becomes a checkpoint of a run of its own: rounding changes the weights, so their records are
not those of the original run.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from adrbench.checkpoints.format import BEST, former_label, load, save
from adrbench.errors import CheckpointError
from benchmarks.harness import command_line

AVERAGE = "average"


def keep_weights(run: Path, file: Path) -> None:
    """Write the best averaged weights of the run directory `run` to `file` in float16.

    Raises:
        CheckpointError: when the run's best checkpoint cannot be read or has no averaged weights.

    """
    checkpoint = load(run / BEST)
    if AVERAGE not in checkpoint.snapshots:
        raise CheckpointError(f"{run} has no averaged weights to keep.")
    average = checkpoint.snapshots[AVERAGE]
    halved = {
        name: value.to(torch.float16) if torch.is_floating_point(value) else value
        for name, value in average.state.items()
    }
    kept = {AVERAGE: replace(average, state=halved)}
    # Without the training images, the label counts: rounded weights get a row of their own.
    rounded = replace(checkpoint, run=file.stem, snapshots=kept, training_images_sha256=None)
    save(file, replace(rounded, label=former_label(rounded)))


def main() -> None:
    """Keep the weights that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    keep_weights(options.run, options.file)


if __name__ == "__main__":
    command_line.run(main)
