"""The display of an evaluation: live lines on a terminal, a plain line per stage elsewhere.

The callbacks only store the progress, which takes less than a microsecond; a thread draws the live
lines (see `live_lines`), so they are also updated within a long batch.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType

from adrbench.display.lines import one_line, print_line
from adrbench.display.live_lines import LiveLines, progress_line, spell_seconds
from adrbench.evaluation.maximization import OUTPUTS

#: A longer name of a stage is shortened.
STAGE_WIDTH = 24
#: The time over which the rate of forward passes is measured.
RATE_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """The stage that is running: `done` of the `total` images that entered it, and the outcome.

    It started at the time `began`, with `done_before` images from an earlier session.
    """

    name: str
    done: int
    total: int
    count: str
    began: float
    done_before: int


class Passes(NamedTuple):
    """Forward passes on the current batch (see `OnPass`), and on all earlier batches."""

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
        self.live = LiveLines(console, self._draw)

    def __enter__(self) -> Self:
        print_line(self.console, self.label, style="bold")
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def batch(self, stage: str, done: int, total: int, num_robust: int) -> None:
        """Show that `done` of the `total` images that entered a stage are evaluated.

        `num_robust` is the number of images still classified correctly after the stages so far.
        """
        now = time.perf_counter()
        outcome = "correct" if stage == "clean" else "robust"
        count = f"{num_robust:,}/{self.num_images:,} {outcome}"
        if stage == OUTPUTS:
            count = f"{done:,}/{total:,} images"
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
        """Store the forward passes on the current batch for the live lines (see `OnPass`)."""
        self.current = Passes(stage, done, expected, batch_images, self.passes_before)

    def _draw(self) -> RenderableType:
        """Return the current live lines."""
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
    """Shorten text to at most `width` characters, ending in an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
