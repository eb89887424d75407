"""Processes that are killed: when, by which signals, and whether they ended as they should."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.processes import ROOT

#: While Python starts; in the midst of work; as soon as a file is being written; after the last
#: line before the record.
Moment = Literal["start", "work", "save", "end"]
EARLY: dict[Moment, int] = {"start": 2, "work": 5, "save": 4}
LATE: dict[Moment, int] = {"start": 1, "work": 2, "save": 2, "end": 5}
#: How often each signal is sent, and how often while a file is being written.
SIGNALS = {signal.SIGKILL: 4, signal.SIGTERM: 3, signal.SIGINT: 3}
SIGNALS_AT_SAVES = SIGNALS | {signal.SIGKILL: 14}
#: How often a second signal follows, and the bounds between which it does.
SHARE_OF_SECONDS, GAPS = 0.25, ((0.0, 0.1), (1.0, 1.5))
#: From the last line to the end of the process.
END_SECONDS = 0.5
#: After these a process is taken to hang: without a signal, and after one.
LONGEST_SECONDS, LONGEST_END_SECONDS = 900.0, 120.0
POLL_SECONDS = 0.0005
INTERRUPTED = "error: interrupted: "


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When to send which signals: the first `wait_seconds` after `moment` has come."""

    moment: Moment
    wait_seconds: float
    signals: tuple[signal.Signals, ...]
    gap_seconds: float


@dataclass(frozen=True, kw_only=True)
class Life:
    """What became of a process.

    `sent` are the signals that it lived to get, the first after `killed_seconds`, when it had
    `spoken` or not; it did speak after `spoke_seconds`. An `exit_code` of -N is death by signal N,
    None is a process that hung.
    """

    plan: Plan | None
    sent: tuple[signal.Signals, ...]
    killed_seconds: float | None
    spoken: bool
    spoke_seconds: float | None
    seconds: float
    exit_code: int | None
    stderr: str

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return bool(self.sent) and self.exit_code != 0

    @property
    def working_seconds(self) -> float:
        """How long it lived after its first word."""
        return 0.0 if self.spoke_seconds is None else self.seconds - self.spoke_seconds

    @property
    def moment(self) -> str:
        """When it was to be killed, in words."""
        return self.plan.moment if self.plan else "in peace"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, but for what it said."""
        return {
            "moment": self.moment,
            "signals": [number.name for number in self.sent],
            "gap_seconds": self.plan.gap_seconds if self.plan and len(self.sent) > 1 else None,
            "killed_seconds": self.killed_seconds,
            "spoken": self.spoken,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "traceback": "Traceback" in self.stderr,
        }


def draw(rng: random.Random, *, is_late: bool, startup_seconds: float, span_seconds: float) -> Plan:
    """Draw how to kill a process that starts up for so long and then may work for that span."""
    weights = LATE if is_late else EARLY
    moment = rng.choices(list(weights), list(weights.values()))[0]
    longest = {"start": startup_seconds, "end": END_SECONDS}.get(moment, span_seconds)
    signals = SIGNALS_AT_SAVES if moment == "save" else SIGNALS
    count = 2 if rng.random() < SHARE_OF_SECONDS else 1
    return Plan(
        moment=moment,
        wait_seconds=rng.uniform(0, longest),
        signals=tuple(rng.choices(list(signals), list(signals.values()), k=count)),
        gap_seconds=rng.uniform(*rng.choice(GAPS)),
    )


def live(
    arguments: Sequence[str], plan: Plan | None, *, directory: Path, log: Path, last_words: str
) -> Life:
    """Run `adrbench` with `arguments` in `directory`, killed as planned; stderr goes to `log`.

    `last_words` stand in the last line before a record is written.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "adrbench", *arguments],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    spoke_seconds = killed_seconds = None
    spoken, sent = False, []

    def has_spoken() -> bool:
        return log.stat().st_size > 0

    try:
        if plan is None or plan.moment != "start":
            watch(process, has_spoken)
            spoke_seconds = time.monotonic() - began
        if plan is not None:
            await_moment(process, plan, directory, lambda: last_words in log.read_text("utf-8"))
            spoken, killed_seconds = has_spoken(), time.monotonic() - began
            sent = send(process, plan)
        exit_code = process.wait(LONGEST_END_SECONDS if sent else LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        process.kill()
        process.wait()
    return Life(
        plan=plan,
        sent=tuple(sent),
        killed_seconds=killed_seconds if sent else None,
        spoken=spoken,
        spoke_seconds=spoke_seconds,
        seconds=time.monotonic() - began,
        exit_code=exit_code,
        stderr=log.read_text("utf-8", "replace"),
    )


def await_moment(
    process: subprocess.Popen[bytes], plan: Plan, directory: Path, is_ending: Callable[[], bool]
) -> None:
    """Return when a process, which has spoken unless it is to die before, is to be killed."""
    if plan.moment == "end":
        watch(process, is_ending)
    watch(process, lambda: False, plan.wait_seconds)
    if plan.moment == "save":
        old = stamps(directory)
        watch(process, lambda: bool(stamps(directory) - old))


def watch(
    process: subprocess.Popen[bytes],
    is_there: Callable[[], bool],
    seconds: float = LONGEST_SECONDS,
) -> None:
    """Return when something is there, the process has ended, or so many seconds have passed."""
    end = time.monotonic() + seconds
    while process.poll() is None and not is_there() and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def stamps(directory: Path) -> set[tuple[Path, int]]:
    """Return the temporary files below a directory, and when each was written to."""
    found = set()
    for path in directory.rglob(".*.tmp"):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # it was renamed meanwhile
            continue
    return found


def send(process: subprocess.Popen[bytes], plan: Plan) -> list[signal.Signals]:
    """Send the signals, as far as the process lives to get them."""
    sent: list[signal.Signals] = []
    for number in plan.signals:
        if sent:
            watch(process, lambda: False, plan.gap_seconds)
        if process.poll() is None:
            process.send_signal(number)
            sent.append(number)
    return sent


def judge(life: Life, *, is_finished: bool) -> list[str]:
    """Return what is wrong with how a process ended; `is_finished` tells of its work."""
    if life.exit_code is None:
        return ["it hung and had to be killed"]
    if never_began(life):
        return []
    wrong = []
    errors = [line for line in life.stderr.splitlines() if line.startswith("error: ")]
    is_again = bool(errors) and len(life.sent) > 1  # the second signal came after the goodbye
    was_deaf = not life.spoken or is_finished or is_again  # before it listens, or after
    allowed = {0} if is_finished or not life.sent else set()
    for number in life.sent:
        is_heard = number != signal.SIGKILL
        allowed |= {128 + number} if is_heard else {-number}
        if is_heard and was_deaf:
            allowed.add(-number)
    if life.exit_code not in allowed:
        wrong.append(f"its exit code is {life.exit_code}, not {' or '.join(map(str, allowed))}")
    if "Traceback" in life.stderr:
        wrong.append("there is a traceback on stderr")
    expected = life.exit_code > 0 or is_again
    if len(errors) != expected or any(INTERRUPTED not in line for line in errors):
        wrong.append(f"stderr has the errors {errors}")
    return wrong


def never_began(life: Life) -> bool:
    """Tell whether SIGINT hit Python on its way to us, or what parses the command line."""
    words = life.stderr.strip()
    is_python = not words or words.endswith("KeyboardInterrupt")
    codes = (1, 128 + signal.SIGINT, -signal.SIGINT)
    return not life.spoken and signal.SIGINT in life.sent and life.exit_code in codes and is_python
