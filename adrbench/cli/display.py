"""What a user sees: long work on stderr, results as plain tables on stdout.

Long work is a live display on a terminal, and plain lines elsewhere.
"""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich import box
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
from rich.text import Text

from adrbench.config.settings import TrainConfig

REFRESH_SECONDS = 0.2
#: The width of tables that no terminal limits: wide enough to leave every line whole.
UNLIMITED = 10_000


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: a terminal wraps it between words, elsewhere it is one line."""
    console.print(Text(text), style=style, soft_wrap=not console.is_terminal)


def one_line(text: str) -> Text:
    """Return text that stays one line: a narrow terminal shows its beginning."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def progress_line(before: str, after: str, *, done: int, total: int) -> Table:
    """Return a line with a bar, as wide as the terminal, between two texts."""
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
        """Show what starts, or goes on in `epoch`, of which `steps` are taken."""
        self.started = True
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.first_step = (epoch - 1) * steps_per_epoch + steps
        self.began = self.epoch_began = time.perf_counter()
        print_line(self.console, f"{self.name}: {config.preset}", style="dim")
        if self.first_step:
            text = f"going on at epoch {epoch} of {config.epochs}"
            if steps:
                text += f", after {steps} of {steps_per_epoch} steps"
            print_line(self.console, text, style="dim")
        if self.console.is_terminal:
            self.live.start()

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
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
        figures = "  ".join([f"loss {values['loss']:.3f}", *_annealed(values)])
        self.shown = Group(progress, one_line(figures), one_line(self.accuracies))
        self.live.refresh()

    def epoch(self, row: dict[str, Any]) -> None:
        """Show a finished epoch as one line."""
        n = row["select_n"]
        weights = [key.split("_")[0] for key in row if key.endswith("_robust_correct")]
        accuracies = "; ".join(
            f"{name} clean {100 * row[f'{name}_clean_correct'] / n:.1f}"
            f" robust {100 * row[f'{name}_robust_correct'] / n:.1f}"
            for name in weights
        )
        self.accuracies = f"{row['select']}: {accuracies}"
        parts = [
            f"epoch {row['epoch']}/{self.config.epochs}",
            f"loss {row['train_loss']:.3f}",
            *_annealed(row),
            self.accuracies,
            f"{row['images_per_second']:,.0f} img/s",
            f"{row['seconds']:.1f} s",
        ]
        self.epoch_began = time.perf_counter()
        print_line(self.console, "  ".join(parts))


def _annealed(values: dict[str, Any]) -> list[str]:
    """Return ADR's two annealed numbers as text, where they are there."""
    if values.get("temperature") is None:
        return []
    return [f"tau {values['temperature']:.2f}", f"lambda {values['interpolation']:.2f}"]


class AttackDisplay:
    """Shows an evaluation: a bar per stage on a terminal, a line per stage elsewhere."""

    def __init__(self, console: Console, label: str) -> None:
        self.console = console
        self.label = label
        self.began = time.perf_counter()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[standing]}", table_column=Column(no_wrap=True)),
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

    def batch(self, stage: str, done: int, total: int, standing: int) -> None:
        """Show that `done` of the `total` images of a stage were attacked."""
        left = f"{standing:,} standing"
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total, standing=left)
        self.progress.update(self.tasks[stage], completed=done, standing=left)
        if done == total:
            seconds = time.perf_counter() - self.began
            self.progress.remove_task(self.tasks[stage])
            text = f"  {stage:<9} {standing:,} left standing after {seconds:.1f} s"
            print_line(self.console, text)


def plain_table(*columns: str) -> Table:
    """Return an empty table in the style of this program, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        figures = column in ("n", "clean", "robust")
        table.add_column(
            column, justify="right" if figures else "left", no_wrap=figures, overflow="fold"
        )
    return table


def print_table(table: Table) -> None:
    """Print to stdout, on a terminal within its width, elsewhere with every row on one line."""
    width = None if sys.stdout.isatty() else UNLIMITED
    Console(width=width, markup=False, emoji=False).print(table)
