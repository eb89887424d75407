"""Lines of text on a console, of any width."""

from rich.console import Console
from rich.text import Text


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print text without markup, wrapped between words on a terminal, else on one line."""
    console.print(Text(text), style=style, soft_wrap=not console.is_terminal)


def one_line(text: str) -> Text:
    """Return text that is never wrapped; a narrow terminal truncates it."""
    return Text(text, no_wrap=True, overflow="ellipsis")
