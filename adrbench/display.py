"""What a user sees of long work, on stderr: a live display on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from adrbench.config import TrainConfig

REFRESH_SECONDS = 0.2


class TrainingDisplay:
    """Shows a run: every step on a terminal, every epoch as a line anywhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            auto_refresh=False,
        )
        self.last_refresh = 0.0
        self.started = False

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def begin(self, config: TrainConfig, steps_per_epoch: int, first_epoch: int) -> None:
        """Show what starts, or goes on at `first_epoch`."""
        self.started = True
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.epoch_began, self.accuracies = time.perf_counter(), ""
        done = (first_epoch - 1) * steps_per_epoch
        if first_epoch > 1:
            self.console.print(f"going on at epoch {first_epoch} of {config.epochs}", style="dim")
        self.task = self.progress.add_task(
            "train",
            total=config.epochs * steps_per_epoch,
            completed=done,
            epoch=first_epoch,
            epochs=config.epochs,
            speed="",
            values="",
        )

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Show a step, at most five times a second."""
        now = time.perf_counter()
        if step == 1:
            self.epoch_began = self.epoch_began if epoch == 1 else now
        if self.progress.disable or now - self.last_refresh < REFRESH_SECONDS:
            return
        self.last_refresh = now
        images = step * self.config.batch_size
        speed = images / max(now - self.epoch_began, 1e-9)
        loss = f"loss {float(values['loss']):.3f}"
        shown = " ".join([loss, *_annealed(values), self.accuracies]).strip()
        self.progress.update(
            self.task,
            completed=(epoch - 1) * self.steps_per_epoch + step,
            epoch=epoch,
            speed=f"{speed:,.0f} img/s",
            values=shown,
        )
        self.progress.refresh()

    def epoch(self, row: dict[str, Any]) -> None:
        """Show a finished epoch as one line."""
        n = row["select_n"]
        weights = [key.split("_")[0] for key in row if key.endswith("_robust_correct")]
        accuracies = [
            f"{name} clean {100 * row[f'{name}_clean_correct'] / n:.1f}"
            f" robust {100 * row[f'{name}_robust_correct'] / n:.1f}"
            for name in weights
        ]
        self.accuracies = "; ".join(accuracies)
        parts = [
            f"epoch {row['epoch']}/{self.config.epochs}",
            f"loss {row['train_loss']:.3f}",
            *_annealed(row),
            f"{row['select']}: {self.accuracies}",
            f"{row['images_per_second']:,.0f} img/s",
            f"{row['seconds']:.1f} s",
        ]
        self.epoch_began = time.perf_counter()
        self.console.print("  ".join(parts), soft_wrap=True, highlight=False)


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
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[standing]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.console.print(self.label, style="bold", highlight=False)
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
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total, standing="")
        self.progress.update(
            self.tasks[stage], completed=done, standing=f"{standing:,} images left standing"
        )
        if done == total:
            seconds = time.perf_counter() - self.began
            self.progress.remove_task(self.tasks[stage])
            self.console.print(
                f"  {stage:<9} {standing:,} left standing after {seconds:.1f} s", highlight=False
            )
