"""Objects whose pickles run code when they are loaded without restrictions."""

from collections.abc import Callable


class Payload:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call
