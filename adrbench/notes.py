"""What is worth a line to the user beside results and errors."""

from collections.abc import Callable

#: Tells the user one line.
Say = Callable[[str], None]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop, to be part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
