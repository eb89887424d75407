"""Advice in error messages: Python arguments in place of command-line flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from adrbench.errors import AdrbenchError

#: A flag in a message, and its value if it has one.
_FLAG = re.compile(r"--([a-z][a-z-]*)(?: (?!and\b|or\b)([\w./+-]*\w)(?=[,.;:)]|$| or ))?")


@contextmanager
def speaking_python() -> Iterator[None]:
    """Rewrite the advice in errors: Python arguments in place of command-line flags."""
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
