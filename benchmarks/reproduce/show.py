"""How far the matrix is and how long it will take: live on a terminal, a line per job elsewhere."""

import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from benchmarks.reproduce.jobs import Job
from benchmarks.reproduce.pool import Running, last_line

REFRESH_SECONDS = 0.5


class Estimate:
    """The seconds that jobs will take, from those of their kind that are done."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        self.seconds: dict[str, list[float]] = {}

    def learn(self, job: Job, seconds: float | None) -> None:
        """Hear that `job` took `seconds`."""
        if seconds is not None:
            self.seconds.setdefault(job.kind, []).append(seconds)

    def of(self, job: Job) -> float | None:
        """Return the mean of the jobs of its kind; None before the first."""
        known = self.seconds.get(job.kind)
        return sum(known) / len(known) if known else None

    def left(self, pending: Sequence[Job], running: Sequence[Running]) -> tuple[float, int]:
        """Return the seconds left by the clock, and of how many jobs nothing is known."""
        waiting = [self.of(job) for job in pending]
        at_work = [(self.of(one.job), one.seconds) for one in running]
        rest = [max(whole - spent, 0.0) for whole, spent in at_work if whole is not None]
        known = [seconds for seconds in waiting if seconds is not None]
        unknown = len(waiting) - len(known) + sum(whole is None for whole, _ in at_work)
        together = (sum(known) + sum(rest)) / self.workers
        return max([together, *rest]), unknown


def describe_left(seconds: float, unknown: int) -> str:
    """Return the time left in words; jobs of which nothing is known are counted apart."""
    shown = f"{timedelta(seconds=round(seconds))} left"
    if unknown:
        return f"{shown} and {unknown} job{'' if unknown == 1 else 's'} of a kind not timed yet"
    return shown


class Display:
    """Shows a matrix on `console`: what is done of how many jobs, what is at work, what is left."""

    def __init__(self, console: Console, estimate: Estimate, pending: Sequence[Job]) -> None:
        self.console, self.estimate = console, estimate
        self.pending = {job.name: job for job in pending}
        self.total = len(estimate.jobs)
        self.last_refresh = 0.0
        self.live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()

    def done(self) -> int:
        """Return the number of jobs that are done."""
        return self.total - len(self.pending)

    def ended(self, one: Running, failure: str, at_work: Sequence[Running]) -> None:
        """Show a job that ended: well, or with a `failure`."""
        if not failure:
            self.pending.pop(one.job.name)
            self.estimate.learn(one.job, one.seconds)
        number = f"[{self.done()}/{self.total}]"
        outcome = failure or f"{one.seconds:,.0f} s; {self.left(at_work)}"
        text = f"{number} {one.job.name}: {outcome}"
        self.console.print(
            text,
            style="red" if failure else None,
            markup=False,
            highlight=False,
            soft_wrap=not self.console.is_terminal,
        )

    def left(self, at_work: Sequence[Running]) -> str:
        """Return the time left in words."""
        names = {one.job.name for one in at_work}
        waiting = [job for name, job in self.pending.items() if name not in names]
        return describe_left(*self.estimate.left(waiting, at_work))

    def refresh(self, at_work: Sequence[Running]) -> None:
        """Show what is at work, twice a second."""
        now = time.perf_counter()
        if not self.live.is_started or now - self.last_refresh < REFRESH_SECONDS:
            return
        self.last_refresh = now
        whole = Table.grid(
            Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True), padding=(0, 1)
        )
        bar = ProgressBar(total=self.total, completed=self.done())
        whole.add_row(f"{self.done()} of {self.total} jobs", bar, self.left(at_work))
        lines = [
            Text(
                f"{one.job.name}  {timedelta(seconds=round(one.seconds))}  {last_line(one.log)}",
                no_wrap=True,
                overflow="ellipsis",
            )
            for one in at_work
        ]
        self.live.update(Group(whole, *lines), refresh=True)
