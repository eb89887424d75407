"""What is worth a line to the user beside results and errors."""

from collections.abc import Callable

#: Tells the user one line.
Say = Callable[[str], None]
