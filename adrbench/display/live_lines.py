"""Lines at the bottom of a terminal that a thread redraws while work is in progress."""

from collections.abc import Callable
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

REFRESHES_PER_SECOND = 5
#: Columns left free at the right. There a terminal echoes Ctrl-C as ^C; on a full line that would
#: begin another one, of which the display would not know when it erases its own.
FREE_COLUMNS = 4


class LiveLines:
    """What `draw` returns, shown at the bottom of a terminal until `stop` erases it.

    On a console that is quiet or not a terminal, nothing is shown.
    """

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self.console = console
        self.live = Live(
            get_renderable=lambda: Constrain(draw(), max(1, console.width - FREE_COLUMNS)),
            console=console,
            transient=True,
            refresh_per_second=REFRESHES_PER_SECOND,
        )

    def start(self) -> None:
        """Show the lines."""
        if self.console.is_terminal and not self.console.quiet:
            self.live.start()

    def stop(self) -> None:
        """Erase the lines."""
        self.live.stop()

    def refresh(self) -> None:
        """Draw the lines now."""
        self.live.refresh()


def progress_line(before: str, after: str, *, fraction: float | None) -> Table:
    """Return a line as wide as the terminal: a progress bar between two texts.

    Without a `fraction` from 0 to 1 the bar only shows activity.
    """
    columns = (Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True))
    line = Table.grid(*columns, padding=(0, 1))
    total = None if fraction is None else 1.0
    bar = ProgressBar(total=total, completed=fraction or 0.0)
    line.add_row(Text(before), bar, Text(after))
    return line


def spell_seconds(seconds: float) -> str:
    """Return a duration in hours, minutes and seconds."""
    return str(timedelta(seconds=round(max(0.0, seconds))))
