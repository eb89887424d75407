"""Run a command and kill it: when, by which signals, and whether it exited as documented."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness.processes import environment
from benchmarks.soak.commands import INTERRUPTED, Command

#: While Python starts; during work; as soon as a file is being written; after the last line of
#: output before a record.
Moment = Literal["start", "work", "save", "end"]
#: Relative frequencies of the moments, early in a command and when a record is due soon.
EARLY: dict[Moment, int] = {"start": 2, "work": 5, "save": 4}
LATE: dict[Moment, int] = {"start": 1, "work": 2, "save": 2, "end": 5}
#: Relative frequencies of the signals, in general and while a file is being written.
SIGNALS = {signal.SIGKILL: 4, signal.SIGTERM: 3, signal.SIGINT: 3}
SIGNALS_AT_SAVES = SIGNALS | {signal.SIGKILL: 14}
#: The share of kills with a second signal, and the ranges of the delay before it.
SECOND_SIGNAL_SHARE, SECOND_SIGNAL_SECONDS = 0.25, ((0.0, 0.1), (1.0, 1.5))
#: The time from the last line of output to the end of the process.
END_SECONDS = 0.5
#: A process hangs if it takes longer than this, in total or after a signal.
TIMEOUT_SECONDS, SIGNAL_TIMEOUT_SECONDS = 900.0, 120.0
POLL_SECONDS = 0.0005


@dataclass(frozen=True, kw_only=True)
class KillPlan:
    """Which signals to send, the first `wait_seconds` after `moment`."""

    moment: Moment
    wait_seconds: float
    signals: tuple[signal.Signals, ...]
    gap_seconds: float


@dataclass(frozen=True, kw_only=True)
class ProcessRun:
    """How one process ran and ended.

    `sent` are the signals sent before it ended, the first after `killed_seconds`; `had_output`
    is whether stderr had any output by then, and output began after `output_seconds`.
    An `exit_code` of -N is death by signal N, None a process that hung.
    """

    plan: KillPlan | None
    sent: tuple[signal.Signals, ...]
    killed_seconds: float | None
    had_output: bool
    output_seconds: float | None
    seconds: float
    exit_code: int | None
    stderr: str

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the process."""
        return bool(self.sent) and self.exit_code != 0

    @property
    def working_seconds(self) -> float:
        """The seconds from the first output to the end."""
        return 0.0 if self.output_seconds is None else self.seconds - self.output_seconds

    @property
    def moment(self) -> str:
        """The planned moment of the kill."""
        return self.plan.moment if self.plan else "no kill"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the output as plain values."""
        return {
            "moment": self.moment,
            "signals": [number.name for number in self.sent],
            "gap_seconds": self.plan.gap_seconds if self.plan and len(self.sent) > 1 else None,
            "killed_seconds": self.killed_seconds,
            "spoken": self.had_output,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "traceback": "Traceback" in self.stderr,
        }


def draw_plan(
    rng: random.Random, *, is_late: bool, startup_seconds: float, span_seconds: float
) -> KillPlan:
    """Draw a plan for a process that takes `startup_seconds` and then works up to that span."""
    weights = LATE if is_late else EARLY
    moment = rng.choices(list(weights), list(weights.values()))[0]
    longest = {"start": startup_seconds, "end": END_SECONDS}.get(moment, span_seconds)
    signals = SIGNALS_AT_SAVES if moment == "save" else SIGNALS
    count = 2 if rng.random() < SECOND_SIGNAL_SHARE else 1
    return KillPlan(
        moment=moment,
        wait_seconds=rng.uniform(0, longest),
        signals=tuple(rng.choices(list(signals), list(signals.values()), k=count)),
        gap_seconds=rng.uniform(*rng.choice(SECOND_SIGNAL_SECONDS)),
    )


def run_command(command: Command, plan: KillPlan | None, directory: Path, log: Path) -> ProcessRun:
    """Run `adrbench` in `directory`, killed as planned, with its stderr in `log`."""
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "adrbench", *command.arguments],
            cwd=directory,
            env=environment(threads=1),
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    output_seconds = killed_seconds = None
    had_output = False
    sent: tuple[signal.Signals, ...] = ()

    def has_output() -> bool:
        return log.stat().st_size > 0

    try:
        if plan is None or plan.moment != "start":
            wait_for(process, has_output)
            output_seconds = time.monotonic() - began
        if plan is not None:
            wait_for_moment(
                process, plan, directory, lambda: command.last_output in log.read_text("utf-8")
            )
            had_output, killed_seconds = has_output(), time.monotonic() - began
            sent = tuple(send_signals(process, plan))
        exit_code = process.wait(SIGNAL_TIMEOUT_SECONDS if sent else TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        process.kill()
        process.wait()
    return ProcessRun(
        plan=plan,
        sent=sent,
        killed_seconds=killed_seconds if sent else None,
        had_output=had_output,
        output_seconds=output_seconds,
        seconds=time.monotonic() - began,
        exit_code=exit_code,
        stderr=log.read_text("utf-8", "replace"),
    )


def wait_for_moment(
    process: subprocess.Popen[bytes], plan: KillPlan, directory: Path, is_ending: Callable[[], bool]
) -> None:
    """Return when the process is to be killed; except at "start", it has produced output."""
    if plan.moment == "end":
        wait_for(process, is_ending)
    wait_for(process, lambda: False, plan.wait_seconds)
    if plan.moment == "save":
        old = find_temporary_files(directory)
        wait_for(process, lambda: bool(find_temporary_files(directory) - old))


def wait_for(
    process: subprocess.Popen[bytes],
    is_met: Callable[[], bool],
    seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Return when a condition is met, the process has ended, or so many seconds have passed."""
    end = time.monotonic() + seconds
    while process.poll() is None and not is_met() and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def find_temporary_files(directory: Path) -> set[tuple[Path, int]]:
    """Return the temporary files below a directory with the times of their last change."""
    found = set()
    for path in directory.rglob(".*.tmp"):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # it was renamed meanwhile
            continue
    return found


def send_signals(process: subprocess.Popen[bytes], plan: KillPlan) -> Iterator[signal.Signals]:
    """Send the planned signals until the process has ended; yield each one that was sent."""
    for index, number in enumerate(plan.signals):
        if index:
            wait_for(process, lambda: False, plan.gap_seconds)
        if process.poll() is None:
            process.send_signal(number)
            yield number


def find_exit_problems(run: ProcessRun, *, is_finished: bool) -> list[str]:
    """Return what is wrong with how a process ended; `is_finished` means that its work is done."""
    if run.exit_code is None:
        return ["the process hung"]
    if was_interrupted_at_start(run):
        return []
    problems = []
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    is_after_error = bool(errors) and len(run.sent) > 1
    # Before the process handles signals and after its work, a signal has its default effect.
    has_default_effect = not run.had_output or is_finished or is_after_error
    allowed = {0} if is_finished or not run.sent else set()
    for number in run.sent:
        is_handled = number != signal.SIGKILL
        allowed |= {128 + number} if is_handled else {-number}
        if is_handled and has_default_effect:
            allowed.add(-number)
    if run.exit_code not in allowed:
        problems.append(f"exit code {run.exit_code}, not {' or '.join(map(str, allowed))}")
    if "Traceback" in run.stderr:
        problems.append("there is a traceback on stderr")
    num_expected = int(run.exit_code > 0 or is_after_error)
    if len(errors) != num_expected or any(INTERRUPTED not in line for line in errors):
        problems.append(f"stderr has the errors {errors}")
    return problems


def was_interrupted_at_start(run: ProcessRun) -> bool:
    """Return whether SIGINT arrived before adrbench handles it, while Python imports modules."""
    output = run.stderr.strip()
    is_python = not output or output.endswith("KeyboardInterrupt")
    codes = (1, 128 + signal.SIGINT, -signal.SIGINT)
    return not run.had_output and signal.SIGINT in run.sent and run.exit_code in codes and is_python
