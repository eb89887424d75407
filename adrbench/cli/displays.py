"""Progress of long work on stderr: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from adrbench.cli.output import one_line, print_line
from adrbench.config.settings import TrainConfig
from adrbench.results.history import HistoryRow

REFRESH_SECONDS = 0.2


def progress_line(before: str, after: str, *, done: int, total: int) -> Table:
    """Return a line as wide as the terminal: a progress bar between two texts."""
    columns = (Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True))
    line = Table.grid(*columns, padding=(0, 1))
    line.add_row(before, ProgressBar(total=total, completed=done), after)
    return line


class TrainingDisplay:
    """Shows a run: every step on a terminal, every epoch as a line anywhere."""

    def __init__(self, console: Console, name: str) -> None:
        self.console = console
        self.name = name
        self.started = False
        self.shown: RenderableType = ""
        self.last_refresh = 0.0
        self.accuracies = ""
        self.live = Live(
            get_renderable=lambda: self.shown, console=console, transient=True, auto_refresh=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shown = ""
        self.live.stop()

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Show that the run starts, or resumes in `epoch` after `steps` of its steps."""
        self.started = True
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.first_step = (epoch - 1) * steps_per_epoch + steps
        self.began = self.epoch_began = time.perf_counter()
        print_line(self.console, f"{self.name}: {config.preset}", style="dim")
        if self.first_step:
            text = f"resuming at epoch {epoch} of {config.epochs}"
            if steps:
                text += f", after {steps} of {steps_per_epoch} steps"
            print_line(self.console, text, style="dim")
        if self.console.is_terminal:
            self.live.start()

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Show a step, at most five times a second."""
        now = time.perf_counter()
        if not self.live.is_started or now - self.last_refresh < REFRESH_SECONDS:
            return
        self.last_refresh = now
        before = (epoch - 1) * self.steps_per_epoch
        done = before + step
        total = self.config.epochs * self.steps_per_epoch
        left = (now - self.began) / (done - self.first_step) * (total - done)
        steps = done - max(before, self.first_step)
        speed = steps * self.config.batch_size / (now - self.epoch_began)
        progress = progress_line(
            f"epoch {epoch}/{self.config.epochs}  step {step}/{self.steps_per_epoch}",
            f"{speed:,.0f} img/s  {timedelta(seconds=round(left))} left",
            done=done,
            total=total,
        )
        figures = "  ".join([f"loss {loss:.3f}", *self._spell(annealed)])
        self.shown = Group(progress, one_line(figures), one_line(self.accuracies))
        self.live.refresh()

    def epoch(self, row: HistoryRow) -> None:
        """Show a finished epoch as one line."""
        accuracies = "; ".join(
            f"{weights} clean {row.accuracy(weights, 'clean'):.1f}"
            f" robust {row.accuracy(weights, 'robust'):.1f}"
            for weights in row.counts
        )
        self.accuracies = f"{row.select}: {accuracies}"
        parts = [
            f"epoch {row.epoch}/{self.config.epochs}",
            f"loss {row.train_loss:.3f}",
            *self._spell(row.annealed),
            self.accuracies,
            f"{row.images_per_second:,.0f} img/s",
            f"{row.seconds:.1f} s",
        ]
        self.epoch_began = time.perf_counter()
        print_line(self.console, "  ".join(parts))

    def _spell(self, annealed: Mapping[str, float]) -> list[str]:
        """Return each annealed number as text, under its symbol where its component has one."""
        symbols = self.config.parsed_method().symbols
        return [f"{symbols.get(name, name)} {value:.2f}" for name, value in annealed.items()]


class AttackDisplay:
    """Shows an evaluation of `num_images`: a line per finished stage, and a bar on a terminal."""

    def __init__(self, console: Console, label: str, *, num_images: int) -> None:
        self.console = console
        self.label = label
        self.num_images = num_images
        self.began = time.perf_counter()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            expand=True,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        print_line(self.console, self.label, style="bold")
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def batch(self, stage: str, done: int, total: int, num_robust: int) -> None:
        """Show that `done` of the `total` images that entered a stage are evaluated.

        `num_robust` is the number of images that the stages so far left correctly classified.
        """
        outcome = "correct" if stage == "clean" else "robust"
        count = f"{num_robust:,}/{self.num_images:,} {outcome}"
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total, count=count)
        self.progress.update(self.tasks[stage], completed=done, count=count)
        if done == total:
            seconds = time.perf_counter() - self.began
            self.progress.remove_task(self.tasks[stage])
            print_line(self.console, f"  {stage:<9} {count} after {seconds:.1f} s")
