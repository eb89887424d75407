"""Jobs as processes: so many at a time, each after what it waits for, all told of signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from adrbench.runtime.signals import SIGNALS, select_unignored
from benchmarks.processes import environment
from benchmarks.reproduce.jobs import Job

POLL_SECONDS = 0.1
HEEDED = (*SIGNALS, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


@dataclass(kw_only=True)
class Running:
    """A job at work; what it says goes to `log`.

    `failure` is what went wrong: whoever hears that it ended may say so, whatever its exit code.
    """

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    failure: str = ""
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The seconds since it began."""
        return time.perf_counter() - self.began


class Pool:
    """Runs jobs in `workers` processes of `threads` threads each, their output in `logs`.

    `waiting` are those that were not started yet, `dropped` those that never will be, since what
    they need failed; `stopped_by` is the signal after which no other was started, None so far.
    """

    def __init__(self, *, workers: int, threads: int | None, logs: Path) -> None:
        self.workers, self.threads, self.logs = workers, threads, logs
        self.waiting: list[Job] = []
        self.running: list[Running] = []
        self.dropped: list[Job] = []
        self.stopped_by: int | None = None

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Pass the signals of this process on to the jobs, which then save what they have.

        Those that it was started to ignore stay ignored. Jobs do not outlive it.
        """
        before = {number: signal.signal(number, self._hear) for number in select_unignored(HEEDED)}
        try:
            yield
        finally:
            for one in self.running:
                one.process.terminate()
            for one in self.running:
                one.process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def work(self, jobs: Iterable[Job]) -> Iterator[Running | None]:
        """Run `jobs` in order, each after the one that it needs, if that went well.

        Yields each that ended, and None several times a second.
        """
        self.waiting = list(jobs)
        awaited = {job.name for job in self.waiting}
        while self.running or (self.waiting and self.stopped_by is None):
            for one in [one for one in self.running if one.process.poll() is not None]:
                self.running.remove(one)
                yield one
                if one.process.returncode or one.failure:
                    self._drop_what_needs(one.job.name)
                else:
                    awaited.remove(one.job.name)
            ready = [job for job in self.waiting if job.needs not in awaited]
            if ready and len(self.running) < self.workers and self.stopped_by is None:
                self.waiting.remove(ready[0])
                self.running.append(self.start(ready[0]))
                if self.stopped_by is not None:  # it came while the job was being started
                    self._pass_on(self.running[-1])
            else:
                yield None
                time.sleep(POLL_SECONDS)

    def start(self, job: Job) -> Running:
        """Start a job in a session of its own, so that it hears of a signal once."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{job.name.replace('/', '-')}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment(self.threads),
                start_new_session=True,
            )
        return Running(job=job, process=process, log=log)

    def _drop_what_needs(self, failed: str) -> None:
        impossible = {failed}
        for job in list(self.waiting):
            if job.needs in impossible:
                impossible.add(job.name)
                self.waiting.remove(job)
                self.dropped.append(job)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        for one in self.running:
            self._pass_on(one)

    def _pass_on(self, one: Running) -> None:
        """Let a job hear of the signal; a terminal that hangs up is told as SIGTERM."""
        is_interrupt = self.stopped_by == signal.SIGINT
        one.process.send_signal(signal.SIGINT if is_interrupt else signal.SIGTERM)


def last_line(log: Path) -> str:
    """Return the last line that a job said, "" before it said any."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 2_000))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else ""


def why(one: Running) -> str:
    """Return why a job that ended failed: the last error it named, else its last line."""
    code = one.process.returncode
    said = error_line(one.log).removeprefix("error: ")
    how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    return f"{said} ({how}, see {one.log})".lstrip()


def error_line(log: Path) -> str:
    """Return the last error that a job named, else its last line."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("error:")]
    return errors[-1] if errors else last_line(log)
