"""Kill trainings and AutoAttack evaluations repeatedly; compare them with uninterrupted ones.

    python -m benchmarks.soak [--train-kills 50] [--attack-kills 30] [--out FILE.json]

A training on digits is killed at random moments by SIGKILL, SIGTERM and SIGINT and restarted until
it finishes; more trainings follow until there were enough kills; then AutoAttack likewise. After
every kill each file has to be complete and no saved progress may be lost. In the end checkpoints,
histories and per-example outcomes have to be those of an uninterrupted run, bit for bit. Exits
with 1 and keeps the files if anything was wrong.
"""

import argparse
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from adrbench.results.provenance import now
from benchmarks.harness import command_line
from benchmarks.harness.hardware import describe_hardware, describe_versions
from benchmarks.soak.commands import METHODS, make_attack, make_training
from benchmarks.soak.trial import Trial, print_now, run_trial


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train-kills", type=int, default=50)
    parser.add_argument("--attack-kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the kills, runs and attacks")
    parser.add_argument("--method", default=METHODS[0], help="of the first run")
    parser.add_argument("--epochs", type=command_line.positive, default=30, help="of each run")
    parser.add_argument("--n", type=command_line.positive, default=24, help="images to attack")
    parser.add_argument(
        "--batch-size", type=command_line.positive, default=4, help="of the attacks"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument("--directory", type=Path, help="work there and keep the files")
    return parser


def run_trials(kills: int, minimum: int, run: Callable[[int, int], Trial]) -> list[Trial]:
    """Call `run` with 1, 2, ... and the remaining kills until none remain or a trial has problems.

    There are at least `minimum` trials.
    """
    trials: list[Trial] = []
    remaining = kills
    while (remaining > 0 or len(trials) < minimum) and not any(one.problems for one in trials):
        trials.append(run(len(trials) + 1, remaining))
        remaining -= trials[-1].kills.total()
    return trials


def run_all(options: argparse.Namespace, directory: Path) -> list[Trial]:
    """Kill trainings, then attacks on their checkpoints, until each kind had its kills."""
    rng = random.Random(options.seed)

    def train(number: int, kills: int) -> Trial:
        command = make_training(
            number, seed=options.seed, method=options.method, epochs=options.epochs
        )
        return run_trial(command, directory / f"train-{number}", kills=kills, rng=rng)

    trainings = run_trials(options.train_kills, 1, train)

    def attack(number: int, kills: int) -> Trial:
        trained = (number - 1) % len(trainings) + 1
        run = directory / f"train-{trained}" / "undisturbed" / "checkpoints" / f"run-{trained}"
        command = make_attack(
            number, run, seed=options.seed, n=options.n, batch_size=options.batch_size
        )
        return run_trial(command, directory / f"attack-{number}", kills=kills, rng=rng)

    return trainings + run_trials(options.attack_kills, 0, attack)


def summarize(trials: list[Trial]) -> list[str]:
    """Return the summary, a line per trial and the totals."""
    kills = sum((trial.kills for trial in trials), Counter[str]())
    problems = [problem for trial in trials for problem in trial.problems]
    num_unreadable = sum("cannot be read" in problem for problem in problems)
    by_signal = ", ".join(f"{name} {count}" for name, count in kills.most_common())
    return [
        *(
            f"{trial.command.name}: {trial.kills.total()} kills, {len(trial.runs)} runs, "
            f"{trial.killed_seconds:.1f} s in total, {trial.uninterrupted_seconds:.1f} s "
            "uninterrupted"
            for trial in trials
        ),
        f"{kills.total()} kills: {by_signal or 'none'}",
        f"{sum(trial.num_read for trial in trials)} files read, {num_unreadable} unreadable; "
        f"{len(problems)} problems",
    ]


def write_json(
    options: argparse.Namespace, directory: Path, summary: list[str], trials: list[Trial]
) -> None:
    """Write the settings, the summary and every run to `--out`, without the working directory."""
    values = {name: value for name, value in vars(options).items() if value is not None}
    document = {
        "benchmark": "soak",
        "created": now(),
        "hardware": describe_hardware(torch.device("cpu")),
        "software": describe_versions(),
        "settings": {n: str(v) for n, v in values.items() if not isinstance(v, Path)},
        "summary": summary,
        "outcomes": [trial.to_json() for trial in trials],
    }
    text = json.dumps(document, indent=1).replace(str(directory), "DIRECTORY")
    options.out.write_text(f"{text}\n", "utf-8")


def main() -> None:
    """Run all trials; exit with 1 if there was a problem."""
    options = make_parser().parse_args()
    # A background shell job ignores SIGINT, and its child processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = (options.directory or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    began = time.monotonic()
    trials = run_all(options, directory)
    summary = [*summarize(trials), f"{time.monotonic() - began:.0f} s"]
    print_now("\n".join(["", *summary]))
    if options.out:
        write_json(options, directory, summary, trials)
    for trial in trials:
        if trial.problems:
            first = f"{trial.command.name}: {trial.problems[0]}"
            raise SystemExit(f"error: {first}; the files are in {directory}.")
    if not options.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    command_line.run(main)
