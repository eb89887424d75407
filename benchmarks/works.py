"""Commands that are worth killing: a training on digits, and AutoAttack on what it made."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.remains import FINISHED, Position

#: The methods of trainings, the first of which a flag may replace.
METHODS = ("adr+wa+awp", "trades+adr", "wa")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command that leaves `num_records`; one is due after `last_words` on stderr.

    `units` are what the two numbers of a position count. The work is nearly done after `late` of
    the first. About `usual_kills` should hit it before it is finished.
    """

    name: str
    arguments: tuple[str, ...]
    units: tuple[str, str]
    late: int
    num_records: int
    last_words: str
    usual_kills: int

    def is_nearly_done(self, position: Position) -> bool:
        """Tell whether a record is due soon."""
        return any(self.late <= place[0] < FINISHED[0] for place in position.values())

    def describe(self, position: Position) -> str:
        """Return how far it is in words."""
        first, second = self.units
        places = [f"{first} {a}, {second} {b}" for a, b in position.values() if a < FINISHED[0]]
        num_finished = len(position) - len(places)
        records = [f"{num_finished} of {self.num_records} records"] if num_finished else []
        return "; ".join([*places, *records]) or "nothing yet"


def make_training(number: int, *, seed: int, method: str, epochs: int) -> Work:
    """Return the training of that number, from 1; `method` is that of the first."""
    methods = (method, *METHODS[1:])
    line = (
        f"train digits --method {methods[(number - 1) % len(methods)]} --seed {seed + number} "
        f"--name run-{number} --epochs {epochs} --batch-size 64 --save-minutes 0.005 --device cpu"
    )
    return Work(
        name=f"train {number}",
        arguments=tuple(line.split()),
        units=("epoch", "step"),
        late=max(1, epochs - 2),
        num_records=1,
        last_words=f"epoch {epochs}/{epochs} ",
        usual_kills=20,
    )


def make_attack(number: int, run: Path, *, seed: int, n: int, batch_size: int) -> Work:
    """Return the AutoAttack of that number, on the best and the last weights of a run."""
    line = f"--seed {seed + number} --n {n} --batch-size {batch_size} --device cpu"
    return Work(
        name=f"attack {number}",
        arguments=("attack", str(run), "--suite", "autoattack", *line.split()),
        units=("stage", "batch"),
        late=4,
        num_records=2,
        last_words="  square",
        usual_kills=15,
    )
