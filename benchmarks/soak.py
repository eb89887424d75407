"""Runs and evaluations that are killed again and again, beside the same ones left in peace.

    python -m benchmarks.soak [--train-kills 50] [--attack-kills 30] [--out FILE.json]

A training on digits is killed at random moments by SIGKILL, SIGTERM and SIGINT and started again
until it is finished; then another, until there were enough kills; then AutoAttack likewise. After
every kill each file has to be whole, and nothing may be lost that was saved. In the end weights,
optimizer, history and verdicts have to be those of an undisturbed process, bit by bit. Exits with 1
when anything was not so, and leaves the files.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adrbench.results.provenance import now
from benchmarks import page
from benchmarks.kills import Life, Plan, draw, judge, live
from benchmarks.machine import describe_hardware, describe_versions
from benchmarks.remains import Remains, compare, find_loss, find_untruth, look
from benchmarks.works import METHODS, Work, make_attack, make_training

#: A work that is not finished after so many times the lives it should take does not get on.
MOST = 6


@dataclass(kw_only=True)
class Outcome:
    """What came of a work: its lives as JSON, and what went `wrong`.

    `calm_seconds` is how long it took in peace, `stormy_seconds` in all its other lives together,
    both from the first word on stderr on.
    """

    work: Work
    calm_seconds: float
    lives: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    stormy_seconds: float = 0.0
    num_read: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return vars(self) | {"work": vars(self.work)}


def soak(work: Work, directory: Path, *, kills: int, rng: random.Random) -> Outcome:
    """Do a work in peace, then again under up to so many kills, and compare."""
    calm, stormy, logs = (directory / name for name in ("undisturbed", "killed", "logs"))
    for place in (calm, stormy, logs):
        place.mkdir(parents=True)
    tell(f"{work.name}: adrbench {' '.join(work.arguments)}")
    undisturbed = give_life(work, None, calm, logs / "undisturbed.txt")
    tell(f"{work.name}: in peace {undisturbed.seconds:.1f} s, exit {undisturbed.exit_code}")
    theirs = look(calm)
    outcome = Outcome(work=work, calm_seconds=undisturbed.working_seconds)
    outcome.wrong = judge(undisturbed, is_finished=theirs.num_records == work.num_records)
    if not outcome.wrong and kills:
        disturb(outcome, stormy, logs, kills=kills, startup=undisturbed.spoke_seconds, rng=rng)
        outcome.wrong += compare(look(stormy), theirs)
        tell(f"{work.name}: {'; '.join(outcome.wrong) or 'ends in the same, bit by bit'}")
    return outcome


def give_life(work: Work, plan: Plan | None, directory: Path, log: Path) -> Life:
    """Start a work, or go on with it."""
    return live(work.arguments, plan, directory=directory, log=log, last_words=work.last_words)


def disturb(
    outcome: Outcome,
    directory: Path,
    logs: Path,
    *,
    kills: int,
    startup: float | None,
    rng: random.Random,
) -> None:
    """Kill a work and start it again until it is finished; after `kills` leave it in peace."""
    work, before, num_stalled = outcome.work, look(directory), 0
    span = 2 * outcome.calm_seconds / (min(kills, work.usual_kills) + 1)
    for number in range(1, MOST * (kills + 1)):
        plan = None
        if outcome.kills.total() < kills:
            plan = draw(
                rng,
                is_late=work.is_nearly_done(before.position),
                startup_seconds=startup or 0.0,
                # A machine that has become slower since has to get through a batch all the same.
                span_seconds=span * (1 + num_stalled / 2),
            )
        life = give_life(work, plan, directory, logs / f"{number:03}.txt")
        after = look(directory)
        wrong = inspect(work, life, before, after)
        take_down(outcome, number, life, after, wrong)
        if life.exit_code == 0 or not life.sent:
            return
        num_stalled = num_stalled + 1 if after.position == before.position else 0
        before = after
    outcome.wrong.append(f"it is not finished after {number} lives")


def inspect(work: Work, life: Life, before: Remains, after: Remains) -> list[str]:
    """Return what is wrong after a life: how it ended, what is torn, lost or untrue."""
    wrong = judge(life, is_finished=after.num_records == work.num_records) + after.torn
    backwards = find_loss(before.position, after.position)
    untrue = find_untruth(life.stderr, after.position)
    return [*wrong, *(what for what in (backwards, untrue) if what)]


def take_down(outcome: Outcome, number: int, life: Life, after: Remains, wrong: list[str]) -> None:
    """Note a life and print it as a line."""
    signals = "+".join(number.name for number in life.sent)
    outcome.kills.update([signals] if life.was_killed else [])
    outcome.num_read += after.num_read
    outcome.stormy_seconds += life.working_seconds
    outcome.wrong += [f"life {number}: {what}" for what in wrong]
    found = {"position": after.position, "leftovers": after.leftovers, "wrong": wrong}
    outcome.lives.append(life.to_json() | found)
    seconds = life.seconds if life.killed_seconds is None else life.killed_seconds
    tell(
        f"{outcome.work.name}  life {number:>3}  {life.moment:<8}  {signals or '-':<15}  after "
        f"{seconds:>5.2f} s  exit {life.exit_code!s:>4}  {outcome.work.describe(after.position)}"
    )
    for what in wrong:
        tell(f"    wrong: {what}")


def tell(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def soak_until(kills: int, least: int, soak_one: Callable[[int, int], Outcome]) -> list[Outcome]:
    """Call `soak_one` with 1, 2, ... and the kills that are left, until none are or it goes wrong.

    It is called `least` times at least.
    """
    outcomes: list[Outcome] = []
    left = kills
    while (left > 0 or len(outcomes) < least) and not any(one.wrong for one in outcomes):
        outcomes.append(soak_one(len(outcomes) + 1, left))
        left -= outcomes[-1].kills.total()
    return outcomes


def soak_all(options: argparse.Namespace, directory: Path) -> list[Outcome]:
    """Soak trainings, then attacks on what they made, until each kind had its kills."""
    rng = random.Random(options.seed)

    def train(number: int, kills: int) -> Outcome:
        settings = {name: getattr(options, name) for name in ("seed", "method", "epochs")}
        work = make_training(number, **settings)
        return soak(work, directory / f"train-{number}", kills=kills, rng=rng)

    trainings = soak_until(options.train_kills, 1, train)

    def attack(number: int, kills: int) -> Outcome:
        trained = (number - 1) % len(trainings) + 1
        run = directory / f"train-{trained}" / "undisturbed" / "checkpoints" / f"run-{trained}"
        settings = {name: getattr(options, name) for name in ("seed", "n", "batch_size")}
        work = make_attack(number, run, **settings)
        return soak(work, directory / f"attack-{number}", kills=kills, rng=rng)

    return trainings + soak_until(options.attack_kills, 0, attack)


def summarise(outcomes: list[Outcome]) -> list[str]:
    """Return what all came to, by line."""
    kills = sum((outcome.kills for outcome in outcomes), Counter[str]())
    lines = [
        f"{outcome.work.name}: {outcome.kills.total()} kills, {len(outcome.lives)} lives, at work "
        f"for {outcome.stormy_seconds:.1f} s in all, {outcome.calm_seconds:.1f} s in peace"
        for outcome in outcomes
    ]
    wrong = [what for outcome in outcomes for what in outcome.wrong]
    torn = sum("cannot be read" in what for what in wrong)
    by_signal = ", ".join(f"{name} {number}" for name, number in kills.most_common())
    num_read = sum(outcome.num_read for outcome in outcomes)
    return [
        *lines,
        f"{kills.total()} kills: {by_signal or 'none'}",
        f"{num_read} files read, {torn} torn; {len(wrong)} things went wrong",
    ]


def main() -> None:
    """Soak; exit with 1 when something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train-kills", type=int, default=50)
    parser.add_argument("--attack-kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the kills, the runs, the attacks")
    parser.add_argument("--method", default=METHODS[0], help="of the first run")
    parser.add_argument("--epochs", type=page.positive, default=30, help="of each run")
    parser.add_argument("--n", type=page.positive, default=24, help="images to attack")
    parser.add_argument("--batch-size", type=page.positive, default=4, help="of the attacks")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument("--directory", type=Path, help="work there and keep the files")
    options = parser.parse_args()
    # Started in the background by a shell, it ignores SIGINT, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = (options.directory or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    began = time.monotonic()
    outcomes = soak_all(options, directory)
    lines = [*summarise(outcomes), f"{time.monotonic() - began:.0f} s"]
    tell("\n".join(["", *lines]))
    if options.out:
        document = {
            "benchmark": "soak",
            "created": now(),
            "hardware": describe_hardware(torch.device("cpu")),
            "software": describe_versions(),
            "settings": {
                name: str(value)
                for name, value in vars(options).items()
                if not isinstance(value, Path | None)
            },
            "summary": lines,
            "outcomes": [outcome.to_json() for outcome in outcomes],
        }
        text = json.dumps(document, indent=1).replace(str(directory), "DIRECTORY")
        options.out.write_text(f"{text}\n", "utf-8")
    for outcome in outcomes:
        if outcome.wrong:
            first = f"{outcome.work.name}: {outcome.wrong[0]}"
            raise SystemExit(f"error: {first}; the files are in {directory}.")
    if not options.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    page.run(main)
