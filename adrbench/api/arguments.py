"""Advice in errors: as arguments in Python, where the command line has flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from adrbench.errors import AdrbenchError

#: A flag in a message, and its value if it has one.
_FLAG = re.compile(r"--([a-z][a-z-]*)(?: (?!and\b|or\b)([\w./+-]*\w)(?=[,.;:)]|$| or ))?")


@contextmanager
def speaking_python() -> Iterator[None]:
    """Give the advice in errors as arguments, where the command line gives it as flags."""
    try:
        yield
    except AdrbenchError as error:
        error.args = (spell_arguments(str(error)), *error.args[1:])
        raise


def spell_arguments(text: str) -> str:
    """Return a message with `--batch-size 8` as `batch_size=8`, and `--force` as `force=True`."""

    def spell(match: re.Match[str]) -> str:
        name, value = match[1].replace("-", "_"), match[2]
        if name == "force":
            return "force=True" + (f" {value}" if value else "")
        return name if value is None else f"{name}={value}"

    return _FLAG.sub(spell, text)
