"""The display of a training run: live lines on a terminal, a plain line per epoch elsewhere.

The callbacks only store the progress, which takes about a microsecond; a thread draws the live
lines (see `live_lines`), so they are also updated within a long step.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group, RenderableType

from adrbench.config.settings import TrainConfig
from adrbench.display.lines import one_line, print_line
from adrbench.display.live_lines import LiveLines, progress_line, spell_seconds
from adrbench.results.history import HistoryRow


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step taken: the `step`-th of `epoch`, both from 1, at the time `at`."""

    epoch: int
    step: int
    loss: float
    annealed: Mapping[str, float]
    at: float


class TrainingDisplay:
    """Shows a run: every step on a terminal, and one line per epoch on any stream.

    `settings` is printed at the start of the run.
    """

    def __init__(self, console: Console, name: str, settings: str = "") -> None:
        self.console = console
        self.name = name
        self.settings = settings
        self.started = False
        self.created = time.perf_counter()
        self.last: Step | None = None
        self.validating: tuple[str, int, int] | None = None
        self.accuracies = ""
        self.notice = ""
        self.live = LiveLines(console, self._draw)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Show that the run starts, or resumes in `epoch` after `steps` of its steps."""
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.first_epoch = epoch
        self.first_step = (epoch - 1) * steps_per_epoch + steps
        self.began = self.epoch_began = time.perf_counter()
        self.started = True
        print_line(self.console, f"{self.name}: {self.settings}", style="dim")
        print_line(self.console, explain_epoch_line(config), style="dim")
        if self.first_step:
            text = f"resuming at epoch {epoch} of {config.epochs}"
            if steps:
                text += f", after {steps} of {steps_per_epoch} steps"
            print_line(self.console, text, style="dim")

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Store a step for the live lines."""
        at = time.perf_counter()
        self.last = Step(epoch=epoch, step=step, loss=loss, annealed=annealed, at=at)

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        """Store the progress of a validation stage for the live lines."""
        self.validating = (f"validating {weights} {stage}", done, total)

    def epoch(self, row: HistoryRow) -> None:
        """Show a finished epoch as one line of at most 80 columns (see `explain_epoch_line`)."""
        accuracies = "  ".join(
            f"{weights} {row.accuracy(weights, 'clean'):.1f}/{row.accuracy(weights, 'robust'):.1f}"
            for weights in row.counts
        )
        self.accuracies = f"{row.select}: {accuracies}"
        self.validating = None
        self.epoch_began = time.perf_counter()
        place, loss = f"epoch {row.epoch}/{self.config.epochs}", f"loss {row.train_loss:.3f}"
        print_line(self.console, f"{place}  {loss}  {accuracies}  {row.seconds:.1f} s")

    def acknowledge(self, number: int) -> None:
        """Show that the run will stop because of the signal `number`; its handler calls this.

        The interrupted code may be using the console. The live lines therefore show the message
        when they are next redrawn; without live lines, it is written directly to the stream.
        """
        name = signal.Signals(number).name
        again = "Ctrl-C" if number == signal.SIGINT else name
        self.notice = f"finishing this step, then saving; {again} once more to quit now"
        if number != signal.SIGINT:
            self.notice = f"{name}: {self.notice}"
        if not self.console.is_terminal and not self.console.quiet:
            with contextlib.suppress(OSError):  # the stream of a notebook has no file descriptor
                os.write(self.console.file.fileno(), f"{self.notice}\n".encode())

    def _draw(self) -> RenderableType:
        """Return the current live lines."""
        now = time.perf_counter()
        lines: list[RenderableType] = [self._draw_position(now)]
        if self.last:
            figures = [f"loss {self.last.loss:.3f}", *self._spell(self.last.annealed)]
            lines.append(one_line("  ".join(figures)))
        lines += [one_line(text) for text in (self.accuracies, self.notice) if text]
        return Group(*lines)

    def _draw_position(self, now: float) -> RenderableType:
        """Return the line with the place in the run, the speed and the time left."""
        if not self.started:
            elapsed = spell_seconds(now - self.created)
            return progress_line("preparing the run", elapsed, fraction=None)
        last = self.last
        place = f"epoch {last.epoch if last else self.first_epoch}/{self.config.epochs}"
        left = self._spell_time_left(now)
        if self.validating:
            what, images, num_images = self.validating
            texts = f"{place}  {what}", f"{images:,}/{num_images:,}{left}"
            return progress_line(*texts, fraction=images / max(1, num_images))
        if last is None:
            elapsed = spell_seconds(now - self.began)
            return progress_line(f"{place}  preparing the first step", elapsed, fraction=None)
        before = (last.epoch - 1) * self.steps_per_epoch
        steps = before + last.step - max(before, self.first_step)
        seconds = last.at - self.epoch_began  # negative before the first step of an epoch
        speed = f"{steps * self.config.batch_size / seconds:,.0f} img/s" if seconds > 0 else ""
        return progress_line(
            f"{place}  step {last.step}/{self.steps_per_epoch}",
            f"{speed}{left}",
            fraction=(before + last.step) / (self.config.epochs * self.steps_per_epoch),
        )

    def _spell_time_left(self, now: float) -> str:
        """Return the time left of the run, "" before the first step."""
        if self.last is None:
            return ""
        done = (self.last.epoch - 1) * self.steps_per_epoch + self.last.step
        total = self.config.epochs * self.steps_per_epoch
        spent = self.last.at - self.began
        left = spent / (done - self.first_step) * (total - done) - (now - self.last.at)
        return f"  {spell_seconds(left)} left"

    def _spell(self, annealed: Mapping[str, float]) -> list[str]:
        """Return each annealed number as text, under its symbol where its component has one."""
        symbols = self.config.parsed_method().symbols
        return [f"{symbols.get(name, name)} {value:.2f}" for name, value in annealed.items()]


def explain_epoch_line(config: TrainConfig) -> str:
    """Return what the numbers of an epoch's line are."""
    split = {"val": "validation", "test": "test"}[config.select]
    return f"each epoch: mean loss; {split} accuracy (%), clean/PGD-{config.steps}; seconds"
