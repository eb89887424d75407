"""The `adrbench` commands that the soak kills, and what it recognizes in their output."""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak.directory_state import FINISHED, Progress

#: Methods of successive trainings; a flag may replace the first.
METHODS = ("adr+wa+awp", "trades+adr", "wa")
#: The error of a command that a signal stopped.
INTERRUPTED = "error: interrupted"
#: Where an interrupted training reports its last save: within an epoch, or after it.
SAVED = re.compile(
    r"interrupted (?:at|after) epoch (\d+) of \d+(?:, after (\d+) of \d+ steps)?; saved"
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that writes `num_records` records.

    `units` are what the two numbers of its progress count; the command is nearly done once the
    first of them reaches `late`. `last_output` is in the last line on stderr before a record is
    written. About `usual_kills` kills are aimed at it before it finishes.
    """

    name: str
    arguments: tuple[str, ...]
    units: tuple[str, str]
    late: int
    num_records: int
    last_output: str
    usual_kills: int

    def is_nearly_done(self, progress: Progress) -> bool:
        """Return whether a record is due soon."""
        return any(self.late <= position[0] < FINISHED[0] for position in progress.values())

    def describe(self, progress: Progress) -> str:
        """Return the progress in words."""
        first, second = self.units
        unfinished = [position for position in progress.values() if position != FINISHED]
        parts = [f"{first} {a}, {second} {b}" for a, b in unfinished]
        if num_finished := len(progress) - len(unfinished):
            parts.append(f"{num_finished} of {self.num_records} records")
        return "; ".join(parts) or "nothing saved yet"


def make_training(number: int, *, seed: int, method: str, epochs: int) -> Command:
    """Return training `number`, counted from 1, on the digits; `method` is that of the first."""
    methods = (method, *METHODS[1:])
    line = (
        f"train digits --method {methods[(number - 1) % len(methods)]} --seed {seed + number} "
        f"--name run-{number} --epochs {epochs} --batch-size 64 --save-minutes 0.005 --device cpu"
    )
    return Command(
        name=f"train {number}",
        arguments=tuple(line.split()),
        units=("epoch", "step"),
        late=max(1, epochs - 2),
        num_records=1,
        last_output=f"epoch {epochs}/{epochs} ",
        usual_kills=20,
    )


def make_attack(number: int, run: Path, *, seed: int, n: int, batch_size: int) -> Command:
    """Return AutoAttack `number` on the best and last checkpoints in the directory `run`."""
    line = f"--seed {seed + number} --n {n} --batch-size {batch_size} --device cpu"
    return Command(
        name=f"attack {number}",
        arguments=("attack", str(run), "--suite", "autoattack", *line.split()),
        units=("stage", "batch"),
        late=4,
        num_records=2,
        last_output="  square",
        usual_kills=15,
    )
