"""One trial: a command runs uninterrupted, then is killed and restarted until it finishes."""

import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak.commands import Command
from benchmarks.soak.comparison import compare, find_false_report, find_lost_progress
from benchmarks.soak.directory_state import DirectoryState, read_directory
from benchmarks.soak.kills import ProcessRun, draw_plan, find_exit_problems, run_command

#: Restarts per kill after which a command is considered to make no progress.
MAX_RESTARTS = 6


@dataclass(kw_only=True)
class Trial:
    """A command, its killed runs as JSON values, and the problems found.

    `uninterrupted_seconds` and `killed_seconds` count from the first output on stderr, the
    latter over all runs under kills.
    """

    command: Command
    uninterrupted_seconds: float
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    killed_seconds: float = 0.0
    num_read: int = 0

    def add(self, run: ProcessRun, after: DirectoryState, problems: list[str]) -> None:
        """Add a run under kills, and the state of the directory after it; print a line."""
        signals = "+".join(number.name for number in run.sent)
        number = len(self.runs) + 1
        self.kills.update([signals] if run.was_killed else [])
        self.num_read += after.num_read
        self.killed_seconds += run.working_seconds
        self.problems += [f"run {number}: {problem}" for problem in problems]
        found = {"position": after.progress, "leftovers": after.leftovers, "wrong": problems}
        self.runs.append(run.to_json() | found)
        seconds = run.seconds if run.killed_seconds is None else run.killed_seconds
        print_now(
            f"{self.command.name}  run {number:>3}  {run.moment:<7}  {signals or '-':<15}  after "
            f"{seconds:>5.2f} s  exit {run.exit_code!s:>4}  {self.command.describe(after.progress)}"
        )
        for problem in problems:
            print_now(f"    problem: {problem}")

    def to_json(self) -> dict[str, Any]:
        """Return the trial as plain values."""
        command = dict(vars(self.command))
        return {
            "work": command | {"last_words": command.pop("last_output")},
            "calm_seconds": self.uninterrupted_seconds,
            "lives": self.runs,
            "wrong": self.problems,
            "kills": self.kills,
            "stormy_seconds": self.killed_seconds,
            "num_read": self.num_read,
        }


def run_trial(command: Command, directory: Path, *, kills: int, rng: random.Random) -> Trial:
    """Run a command uninterrupted, then under up to `kills` kills, and compare the results."""
    uninterrupted, killed, logs = (directory / n for n in ("undisturbed", "killed", "logs"))
    for path in (uninterrupted, killed, logs):
        path.mkdir(parents=True)
    print_now(f"{command.name}: adrbench {' '.join(command.arguments)}")
    run = run_command(command, None, uninterrupted, logs / "undisturbed.txt")
    print_now(f"{command.name}: uninterrupted {run.seconds:.1f} s, exit code {run.exit_code}")
    expected = read_directory(uninterrupted)
    trial = Trial(command=command, uninterrupted_seconds=run.working_seconds)
    is_finished = expected.num_records == command.num_records
    trial.problems = find_exit_problems(run, is_finished=is_finished)
    if not trial.problems and kills:
        kill_repeatedly(trial, killed, logs, kills=kills, startup=run.output_seconds, rng=rng)
        trial.problems += compare(read_directory(killed), expected)
        outcome = "; ".join(trial.problems) or "identical to the uninterrupted run, bit for bit"
        print_now(f"{command.name}: {outcome}")
    return trial


def kill_repeatedly(
    trial: Trial,
    directory: Path,
    logs: Path,
    *,
    kills: int,
    startup: float | None,
    rng: random.Random,
) -> None:
    """Kill a command and restart it until it finishes; after `kills`, let it finish."""
    command, before, num_stalled = trial.command, read_directory(directory), 0
    span = 2 * trial.uninterrupted_seconds / (min(kills, command.usual_kills) + 1)
    for number in range(1, MAX_RESTARTS * (kills + 1)):
        plan = None
        if trial.kills.total() < kills:
            plan = draw_plan(
                rng,
                is_late=command.is_nearly_done(before.progress),
                startup_seconds=startup or 0.0,
                # On a machine that has become slower, a batch takes longer than planned.
                span_seconds=span * (1 + num_stalled / 2),
            )
        run = run_command(command, plan, directory, logs / f"{number:03}.txt")
        after = read_directory(directory)
        trial.add(run, after, find_problems(command, run, before, after))
        if run.exit_code == 0 or not run.sent:
            return
        num_stalled = num_stalled + 1 if after.progress == before.progress else 0
        before = after
    trial.problems.append(f"it is not finished after {len(trial.runs)} runs")


def find_problems(
    command: Command, run: ProcessRun, before: DirectoryState, after: DirectoryState
) -> list[str]:
    """Return unexpected exits, unreadable files, lost progress and false reports after a run."""
    is_finished = after.num_records == command.num_records
    return [
        *find_exit_problems(run, is_finished=is_finished),
        *after.unreadable,
        *find_lost_progress(before.progress, after.progress),
        *find_false_report(run.stderr, after.progress),
    ]


def print_now(line: str) -> None:
    """Print a line to stdout without delay."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
