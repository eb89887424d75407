"""What the package logs while a test runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Messages(logging.Handler):
    """Collects the text of every record of INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the messages that the package logs within the context."""
    logger = logging.getLogger("adrbench")
    handler, level = Messages(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.texts
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
