"""Progress of long work on stderr: live lines on a terminal, plain lines elsewhere.

What the work calls only stores how far it is, which takes less than a microsecond; a thread draws
the live lines (see `live_lines`), so that they also move within a long step.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType

from adrbench.cli.live_lines import make_live, progress_line, spell_seconds
from adrbench.cli.output import one_line, print_line
from adrbench.config.settings import TrainConfig
from adrbench.results.history import HistoryRow

#: A longer name of a stage is shortened.
STAGE_WIDTH = 24
#: The time over which the rate of forward passes is measured.
RATE_SECONDS = 3.0

#: (stage, forward passes that its attack has made on the current batch, how many it makes at most
#: or 0 if unknown, images in the batch), called after every forward pass.
OnPasses = Callable[[str, int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step taken: the `step`-th of `epoch`, both from 1, at the time `at`."""

    epoch: int
    step: int
    loss: float
    annealed: Mapping[str, float]
    at: float


class TrainingDisplay:
    """Shows a run: every step on a terminal, every epoch as a line anywhere.

    `settings` is what the run is introduced with.
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
        self.live = make_live(console, self._draw)

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Show that the run starts, or resumes in `epoch` after `steps` of its steps."""
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.first_epoch = epoch
        self.first_step = (epoch - 1) * steps_per_epoch + steps
        self.began = self.epoch_began = time.perf_counter()
        self.started = True
        all_settings = " (adrbench train ... --dry-run shows all)" if self.settings else ""
        introduction = f"{self.name}: {self.settings}{all_settings}"
        print_line(self.console, introduction, style="dim")
        if self.first_step:
            text = f"resuming at epoch {epoch} of {config.epochs}"
            if steps:
                text += f", after {steps} of {steps_per_epoch} steps"
            print_line(self.console, text, style="dim")

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Note a step for the live lines."""
        at = time.perf_counter()
        self.last = Step(epoch=epoch, step=step, loss=loss, annealed=annealed, at=at)

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        """Note for the live lines how many images of a stage of the validation are done."""
        self.validating = (f"validating {weights} {stage}", done, total)

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
        self.validating = None
        self.epoch_began = time.perf_counter()
        print_line(self.console, "  ".join(parts))

    def acknowledge(self, number: int) -> None:
        """Show that the run will stop because of the signal `number`; its handler calls this.

        The console may be in use by the code that the signal interrupted. So the live lines show
        it when they are next redrawn, and elsewhere it is written past the console.
        """
        name = signal.Signals(number).name
        again = "Ctrl-C" if number == signal.SIGINT else name
        self.notice = f"finishing this step, then saving; {again} once more to quit now"
        if number != signal.SIGINT:
            self.notice = f"{name}: {self.notice}"
        if not self.console.is_terminal and not self.console.quiet:
            os.write(self.console.file.fileno(), f"{self.notice}\n".encode())

    def _draw(self) -> RenderableType:
        """Return the live lines of this moment."""
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


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """The stage that is running: `done` of the `total` images that entered it, and the outcome.

    It began at the time `began`, with `done_before` images of an earlier session.
    """

    name: str
    done: int
    total: int
    count: str
    began: float
    done_before: int


class Passes(NamedTuple):
    """Forward passes on the current batch, as `OnPasses` has them, and on all batches before."""

    stage: str = ""
    done: int = 0
    expected: int = 0
    batch_images: int = 0
    before: int = 0


class AttackDisplay:
    """Shows an evaluation of `num_images`: a line per finished stage; on a terminal, live lines."""

    def __init__(self, console: Console, label: str, *, num_images: int) -> None:
        self.console = console
        self.label = label
        self.num_images = num_images
        self.began = time.perf_counter()
        self.stage: StageProgress | None = None
        self.current = Passes()
        self.passes_before = 0
        self.samples: deque[tuple[float, int]] = deque()
        self.live = make_live(console, self._draw)

    def __enter__(self) -> Self:
        print_line(self.console, self.label, style="bold")
        if self.console.is_terminal and not self.console.quiet:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()

    def batch(self, stage: str, done: int, total: int, num_robust: int) -> None:
        """Show that `done` of the `total` images that entered a stage are evaluated.

        `num_robust` is the number of images that the stages so far left correctly classified.
        """
        now = time.perf_counter()
        outcome = "correct" if stage == "clean" else "robust"
        count = f"{num_robust:,}/{self.num_images:,} {outcome}"
        former = self.stage if self.stage and self.stage.name == stage else None
        self.stage = StageProgress(
            name=stage,
            done=done,
            total=total,
            count=count,
            began=former.began if former else now,
            done_before=former.done_before if former else done,
        )
        self.passes_before += self.current.done
        self.current = Passes(before=self.passes_before)
        if done == total:
            self.stage = None
            name = shorten(stage, STAGE_WIDTH)
            print_line(self.console, f"  {name:<9} {count} after {now - self.began:.1f} s")

    def passes(self, stage: str, done: int, expected: int, batch_images: int) -> None:
        """Note forward passes on the current batch for the live lines (see `OnPasses`)."""
        self.current = Passes(stage, done, expected, batch_images, self.passes_before)

    def _draw(self) -> RenderableType:
        """Return the live lines of this moment."""
        stage, current, now = self.stage, self.current, time.perf_counter()
        name = shorten(stage.name if stage else current.stage, STAGE_WIDTH)
        elapsed = f"{spell_seconds(now - self.began)} elapsed"
        parts = [*self._spell_passes(current, now), elapsed]
        if stage is None:
            first = progress_line(name or "preparing", "", fraction=None)
        else:
            images = stage.done + current.batch_images * fraction_of(current)
            left = spell_time_left(stage, images, now)
            first = progress_line(
                name, f"{stage.done:,}/{stage.total:,} images{left}", fraction=images / stage.total
            )
            parts.insert(0, stage.count)
        return Group(first, one_line("  ".join(parts)))

    def _spell_passes(self, current: Passes, now: float) -> list[str]:
        """Return the forward passes made on the batch, and how many are made per second."""
        total = current.before + current.done
        self.samples.append((now, total))
        while len(self.samples) > 2 and now - self.samples[1][0] >= RATE_SECONDS:
            self.samples.popleft()
        if not current.done:
            return []
        began, before = self.samples[0]
        unit, units = ("query", "queries") if "square" in current.stage else ("pass", "passes")
        of = f"/{current.expected:,}" if current.expected else ""
        rate = f"{(total - before) / (now - began):,.0f} {units}/s" if now > began else ""
        return [f"{unit} {current.done:,}{of}", *([rate] if rate else [])]


def fraction_of(current: Passes) -> float:
    """Return how much of the current batch is done, from 0 to 1; 0 if that is unknown."""
    return min(1.0, current.done / current.expected) if current.expected else 0.0


def spell_time_left(stage: StageProgress, images: float, now: float) -> str:
    """Return the time left of a stage with `images` done, "" before it can be estimated."""
    done = images - stage.done_before
    if done <= 0:
        return ""
    left = (now - stage.began) / done * (stage.total - images)
    return f"  {spell_seconds(left)} left"


def shorten(text: str, width: int) -> str:
    """Return text of at most `width` characters; a longer one ends in an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
