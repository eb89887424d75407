"""Progress and estimated time left: live on a terminal, a line per job elsewhere."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmarks.reproduce.jobs import Job
from benchmarks.reproduce.process_pool import ProcessPool, RunningJob, find_last_line


class Estimate:
    """Estimates the seconds that jobs take from those of finished jobs of the same kind."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[str, list[float]] = {}

    def add(self, job: Job, seconds: float | None) -> None:
        """Take into account that `job` took `seconds`, if it is finished."""
        if seconds is not None:
            self.seconds.setdefault(job.kind, []).append(seconds)

    def get(self, job: Job) -> float | None:
        """Return the mean of the finished jobs of the same kind, or None."""
        known = self.seconds.get(job.kind)
        return sum(known) / len(known) if known else None

    def describe_time_left(self, waiting: Sequence[Job], running: Sequence[RunningJob]) -> str:
        """Return the expected wall time until all jobs are finished, in words."""
        expected = [self.get(job) for job in waiting]
        totals = [(self.get(one.job), one.seconds) for one in running]
        rest = [max(total - spent, 0.0) for total, spent in totals if total is not None]
        known = [seconds for seconds in expected if seconds is not None]
        num_unknown = len(expected) - len(known) + len(totals) - len(rest)
        if num_unknown and not known and not rest:
            return "time left unknown"
        seconds = max([(sum(known) + sum(rest)) / self.workers, *rest, 0.0])
        left = f"{timedelta(seconds=round(seconds))} left"
        if num_unknown:
            left += f", and {num_unknown} job{'' if num_unknown == 1 else 's'} not timed yet"
        return left


class Display:
    """Shows how many of `total` jobs are finished, the running jobs and the time left."""

    def __init__(
        self, console: Console, pool: ProcessPool, estimate: Estimate, *, finished: int, total: int
    ) -> None:
        self.console, self.pool, self.estimate = console, pool, estimate
        self.finished, self.total = finished, total

    def live(self) -> AbstractContextManager[object]:
        """Return a context within which a terminal shows the progress, updated twice a second."""
        if not self.console.is_terminal:
            return nullcontext()
        return Live(
            console=self.console,
            transient=True,
            refresh_per_second=2,
            get_renderable=self.render,
        )

    def render(self) -> Group:
        """Return a bar over all jobs and a line for each running job."""
        running = list(self.pool.running)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"{self.finished} of {self.total} jobs",
            ProgressBar(total=self.total, completed=self.finished, width=40),
            self.estimate.describe_time_left(self.pool.waiting, running),
        )
        lines = [
            f"{one.job.name}  {timedelta(seconds=round(one.seconds))}  {find_last_line(one.log)}"
            for one in running
        ]
        return Group(bar, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))

    def print_ended(self, one: RunningJob) -> None:
        """Print a line about a job that has ended."""
        if not one.failure:
            self.finished += 1
            self.estimate.add(one.job, one.seconds)
        left = self.estimate.describe_time_left(self.pool.waiting, self.pool.running)
        outcome = one.failure or f"{one.seconds:,.0f} s; {left}"
        text = f"[{self.finished}/{self.total}] {one.job.name}: {outcome}"
        style = "red" if one.failure else None
        self.console.print(Text(text), style=style, soft_wrap=not self.console.is_terminal)
