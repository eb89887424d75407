"""How far the matrix is and how long it will take: live on a terminal, a line per job elsewhere."""

import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live

from adrbench.cli.display import one_line, print_line, progress_line
from benchmarks.reproduce.jobs import Job
from benchmarks.reproduce.pool import Pool, Running, last_line

REFRESH_SECONDS = 0.5


class Estimate:
    """The seconds that jobs will take, from those of their kind that are done."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[str, list[float]] = {}

    def learn(self, job: Job, seconds: float | None) -> None:
        """Hear that `job` took `seconds`."""
        if seconds is not None:
            self.seconds.setdefault(job.kind, []).append(seconds)

    def of(self, job: Job) -> float | None:
        """Return the mean of the jobs of its kind; None before the first."""
        known = self.seconds.get(job.kind)
        return sum(known) / len(known) if known else None

    def left(self, waiting: Sequence[Job], running: Sequence[Running]) -> str:
        """Return in words how long it will take, by the clock."""
        expected = [self.of(job) for job in waiting]
        at_work = [(self.of(one.job), one.seconds) for one in running]
        rest = [max(whole - spent, 0.0) for whole, spent in at_work if whole is not None]
        known = [seconds for seconds in expected if seconds is not None]
        unknown = len(expected) - len(known) + len(at_work) - len(rest)
        if unknown and not known and not rest:
            return "time left not known yet"
        seconds = max([(sum(known) + sum(rest)) / self.workers, *rest, 0.0])
        shown = f"{timedelta(seconds=round(seconds))} left"
        if unknown:
            return f"{shown}, and {unknown} job{'' if unknown == 1 else 's'} not timed yet"
        return shown


class Display:
    """Shows a matrix on `console`: `done` of `total` jobs, what is at work, what is left."""

    def __init__(self, console: Console, estimate: Estimate, *, done: int, total: int) -> None:
        self.console, self.estimate = console, estimate
        self.done, self.total = done, total
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

    def ended(self, one: Running, pool: Pool) -> None:
        """Show a job that ended, well or not."""
        if not one.failure:
            self.done += 1
            self.estimate.learn(one.job, one.seconds)
        left = self.estimate.left(pool.waiting, pool.running)
        outcome = one.failure or f"{one.seconds:,.0f} s; {left}"
        text = f"[{self.done}/{self.total}] {one.job.name}: {outcome}"
        print_line(self.console, text, style="red" if one.failure else None)

    def refresh(self, pool: Pool) -> None:
        """Show what is at work, twice a second."""
        now = time.perf_counter()
        if not self.live.is_started or now - self.last_refresh < REFRESH_SECONDS:
            return
        self.last_refresh = now
        whole = progress_line(
            f"{self.done} of {self.total} jobs",
            self.estimate.left(pool.waiting, pool.running),
            done=self.done,
            total=self.total,
        )
        lines = [
            one_line(
                f"{one.job.name}  {timedelta(seconds=round(one.seconds))}  {last_line(one.log)}"
            )
            for one in pool.running
        ]
        self.live.update(Group(whole, *lines), refresh=True)
