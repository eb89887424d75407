"""Jobs as processes: so many at a time, each after what it waits for, all told of signals."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from benchmarks.processes import ROOT
from benchmarks.reproduce.jobs import Job

POLL_SECONDS = 0.1


@dataclass(kw_only=True)
class Running:
    """A job at work; what it says goes to `log`."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The seconds since it began."""
        return time.perf_counter() - self.began


class Pool:
    """Runs jobs in `workers` processes of `threads` threads each, their output in `logs`."""

    def __init__(self, *, workers: int, threads: int | None, logs: Path) -> None:
        self.workers, self.threads, self.logs = workers, threads, logs
        self.running: list[Running] = []
        self.stopped_by: int | None = None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to every job, and start no other; a handler of signals."""
        self.stopped_by = number
        for one in self.running:
            one.process.send_signal(number)

    def work(
        self,
        jobs: Iterable[Job],
        *,
        ended: Callable[[Running, int], None],
        waited: Callable[[], None],
    ) -> None:
        """Run `jobs`, those that wait for one that failed excepted.

        `ended` hears of each job with its exit code, `waited` several times a second.
        """
        waiting, done = list(jobs), set[str]()
        names = {job.name for job in waiting}
        failed: set[str] = set()
        while self.running or (waiting and self.stopped_by is None):
            for one in [one for one in self.running if one.process.poll() is not None]:
                self.running.remove(one)
                code = one.process.returncode
                (failed if code else done).add(one.job.name)
                ended(one, code)
            waiting = [job for job in waiting if job.needs not in failed]
            ready = [job for job in waiting if job.needs in done or job.needs not in names]
            if ready and len(self.running) < self.workers and self.stopped_by is None:
                waiting.remove(ready[0])
                self.running.append(self.start(ready[0]))
                continue
            waited()
            time.sleep(POLL_SECONDS)

    def start(self, job: Job) -> Running:
        """Start a job in a session of its own, so that it hears of a signal once."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{job.name.replace('/', '-')}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment(self.threads),
                start_new_session=True,
            )
        return Running(job=job, process=process, log=log)


def environment(threads: int | None) -> dict[str, str]:
    """Return the variables of a job: this checkout within reach, and its share of the cores."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    share = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **share}


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


def error_line(log: Path) -> str:
    """Return the last error that a job named, else its last line."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("error:")]
    return errors[-1] if errors else last_line(log)
