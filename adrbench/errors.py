"""The errors a user can cause.

The text of each is the whole message: what was wrong, the value, what is allowed, the next
action. The command line prints it after `error:` and exits with `exit_code`.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

#: How many valid names an error lists when none is near.
MOST_SHOWN = 15
#: Up to how many valid names it lists all, beside the nearest.
FEW = 6


class AdrbenchError(ValueError):
    """Something the user can act on; its text is one sentence."""

    exit_code = 1
    #: Whether another process of the same run tells the user.
    is_reported = False


class UsageError(AdrbenchError):
    """A name or a number on the command line or in a call that is not allowed."""

    exit_code = 2


class DataError(AdrbenchError):
    """A data set that is missing, or not in the form it should have."""


class CheckpointError(AdrbenchError):
    """A checkpoint or state dict that cannot be read or does not fit its model."""


class RecordError(AdrbenchError):
    """A result file that is broken, foreign, or of a newer schema."""


class LostProcessError(AdrbenchError):
    """Another process that shared the work is gone; its own message says why, if it had one."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """Return the error for an unknown `kind` called `name`, offering the nearest valid names."""
    by_lower = {valid_name.lower(): valid_name for valid_name in valid}
    near = get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(by_lower[found] for found in near)}?"
        if len(by_lower) <= FEW:
            hint += f" There are {', '.join(by_lower.values())}."
    else:
        hint = f"choose from {list_first(list(by_lower.values()), MOST_SHOWN)}."
    return UsageError(f"unknown {kind} {name!r}: {hint}")


def list_first(names: Sequence[str], max_shown: int) -> str:
    """Return the first `max_shown` names as a list, such as "a, b and 2 more"."""
    more = f" and {len(names) - max_shown} more" if len(names) > max_shown else ""
    return ", ".join(names[:max_shown]) + more


def one_line(error: object) -> str:
    """Return an error's text on one line, shortened to 200 characters, to be part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop, to be part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
