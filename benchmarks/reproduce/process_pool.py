"""Runs jobs as processes: several at a time, each after the job that it needs, until a signal."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from benchmarks.harness.processes import environment
from benchmarks.reproduce.jobs import Job

POLL_SECONDS = 0.1
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(kw_only=True)
class RunningJob:
    """A job's process, whose output goes to `log`.

    `failure` describes what went wrong; a caller may set it when the job has ended, whatever the
    exit code.
    """

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    failure: str = ""
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The seconds since the start."""
        return time.perf_counter() - self.began


class ProcessPool:
    """Runs jobs in `workers` processes of `threads` threads each, with their output in `logs`.

    `waiting` are the jobs not started yet, `skipped` those that never will be because a job that
    they need failed. After the signal `stopped_by`, no job is started.
    """

    def __init__(self, *, workers: int, threads: int | None, logs: Path) -> None:
        self.workers, self.threads, self.logs = workers, threads, logs
        self.waiting: list[Job] = []
        self.running: list[RunningJob] = []
        self.skipped: list[Job] = []
        self.stopped_by: int | None = None

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Forward this process's signals to the jobs, which then save; end all jobs on exit.

        Signals that this process was started to ignore remain ignored.
        """
        handled = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._stop) for number in handled}
        try:
            yield
        finally:
            for one in self.running:
                one.process.terminate()
            for one in self.running:
                one.process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, jobs: Iterable[Job]) -> Iterator[RunningJob]:
        """Run `jobs` in order, each after the one that it needs; yield each when it has ended."""
        self.waiting = list(jobs)
        unfinished = {job.name for job in self.waiting}
        while self.running or (self.waiting and self.stopped_by is None):
            for one in [one for one in self.running if one.process.poll() is not None]:
                self.running.remove(one)
                yield one
                if one.process.returncode or one.failure:
                    self._skip_dependents(one.job.name)
                else:
                    unfinished.remove(one.job.name)
            ready = [job for job in self.waiting if job.needs not in unfinished]
            if ready and len(self.running) < self.workers and self.stopped_by is None:
                self.waiting.remove(ready[0])
                self.running.append(self.start(ready[0]))
                if self.stopped_by is not None:  # the signal arrived while the job was starting
                    self._forward(self.running[-1])
            else:
                time.sleep(POLL_SECONDS)

    def start(self, job: Job) -> RunningJob:
        """Start a job in its own session, so that a terminal's signals reach it only through us."""
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
        return RunningJob(job=job, process=process, log=log)

    def _skip_dependents(self, failed: str) -> None:
        impossible = {failed}
        for job in list(self.waiting):
            if job.needs in impossible:
                impossible.add(job.name)
                self.waiting.remove(job)
                self.skipped.append(job)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        for one in self.running:
            self._forward(one)

    def _forward(self, one: RunningJob) -> None:
        """Send the signal to a job; SIGHUP as SIGTERM, since a job has no terminal."""
        is_interrupt = self.stopped_by == signal.SIGINT
        one.process.send_signal(signal.SIGINT if is_interrupt else signal.SIGTERM)


def explain_failure(one: RunningJob) -> str:
    """Return the last error in the log of a failed job, else its last line, and its exit code."""
    code = one.process.returncode
    message = find_error(one.log).removeprefix("error: ")
    exit_text = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    return f"{message} ({exit_text}, see {one.log})".lstrip()


def find_error(log: Path) -> str:
    """Return the last line with an error in a log, else its last line."""
    return find_last_line(log, "error:") or find_last_line(log)


def find_last_line(log: Path, prefix: str = "") -> str:
    """Return the last line of a log that is not blank and starts with `prefix`, or ""."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    found = [line.strip() for line in lines if line.strip() and line.startswith(prefix)]
    return found[-1] if found else ""
