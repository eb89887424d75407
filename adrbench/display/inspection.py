"""The display of an inspection: one live line on a terminal, nothing elsewhere."""

import time
from typing import Self

from rich.console import Console, RenderableType

from adrbench.display.live_lines import LiveLines, progress_line, spell_seconds


class InspectionDisplay:
    """Shows how many images an inspection has finished."""

    def __init__(self, console: Console) -> None:
        self.done, self.total = 0, 0
        self.began = time.perf_counter()
        self.live = LiveLines(console, self._draw)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def batch(self, done: int, total: int) -> None:
        """Store that `done` of `total` images are finished."""
        self.done, self.total = done, total

    def _draw(self) -> RenderableType:
        """Return the current live line."""
        elapsed = time.perf_counter() - self.began
        if not self.done:
            after = f"{spell_seconds(elapsed)} elapsed"
            return progress_line("rectifying labels", after, fraction=None)
        left = elapsed / self.done * (self.total - self.done)
        after = f"{self.done:,}/{self.total:,} images  {spell_seconds(left)} left"
        return progress_line("rectifying labels", after, fraction=self.done / self.total)
