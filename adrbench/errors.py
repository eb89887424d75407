"""The errors a user can cause.

The text of an error is the whole message: what was wrong, the value, what is allowed, the next
action. The command line prints it after `error:` and exits with `exit_code`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

from adrbench.printable import printable

#: The number of valid names that an error lists when none is similar.
MOST_SHOWN = 15
#: With at most this many valid names, an error lists all of them after the most similar ones.
MAX_LISTED_IN_FULL = 6
#: Longer names are abbreviated in messages, since a file can contain names of any length.
LONGEST_NAME = 80
#: The start of the error that PyTorch's CPU allocator raises.
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
#: Whether messages name arguments as flags of the command line, or as keyword arguments.
_names_flags = ContextVar("names_flags", default=False)


class AdrbenchError(ValueError):
    """An error the user can act on; its text is one printable line, whatever it quotes."""

    exit_code = 1
    #: Whether another process of the same run reports this error to the user.
    is_reported = False

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UsageError(AdrbenchError):
    """A name or number, given on the command line or in a call, that is not allowed."""

    exit_code = 2


class DataError(AdrbenchError):
    """A data set that is missing or invalid."""


class CheckpointError(AdrbenchError):
    """A checkpoint or state dict that cannot be read or does not fit its model."""


class RecordError(AdrbenchError):
    """A result file that is damaged, written by another program, or of a newer schema."""


class NonFiniteLogitsError(AdrbenchError):
    """A model whose logits on unperturbed images are not all finite.

    `finding` is what was wrong, for use in another sentence.
    """

    def __init__(self, label: str, suite: str, *, count: int, n: int) -> None:
        self.finding = (
            f"the logits of {label} are not finite (NaN or infinity) on {count:,} of {n:,} clean "
            "images"
        )
        super().__init__(
            f"{self.finding}, so there is no accuracy under {suite}: the model's training "
            "diverged, or its weights or normalization are damaged; use other weights."
        )


class LostProcessError(AdrbenchError):
    """Another process of the group exited; its own error gives the reason, if it printed one."""


def argument(name: str, value: object = None) -> str:
    """Return an argument, with its value if given, in the form in which the caller writes it.

    On the command line this is a flag, such as `--batch-size 8` or `--force`; in Python it is a
    keyword argument, such as `batch_size=8` or `force=True`.
    """
    is_switch = value is True and _names_flags.get()
    if value is None or is_switch:
        return _spell_name(name)
    return assign(name, str(value) if _names_flags.get() else repr(value))


def assign(name: str, value: str) -> str:
    """Return an argument with a value that is already spelled, such as `--eps 8/255`."""
    return f"{_spell_name(name)}{' ' if _names_flags.get() else '='}{value}"


def _spell_name(name: str) -> str:
    return "--" + name.replace("_", "-") if _names_flags.get() else name


@contextmanager
def naming_flags() -> Iterator[None]:
    """Let messages name arguments as flags within the context, as the command line does."""
    token = _names_flags.set(True)
    try:
        yield
    finally:
        _names_flags.reset(token)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is the out-of-memory error of Python or torch, on any device."""
    if isinstance(error, MemoryError):
        return True
    is_of_torch = any(one.__name__ == "OutOfMemoryError" for one in type(error).__mro__)
    return is_of_torch or (isinstance(error, RuntimeError) and CPU_OUT_OF_MEMORY in str(error))


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """Return the error for an unknown `kind` called `name`, with the most similar valid names."""
    by_lower = {valid_name.lower(): valid_name for valid_name in valid}
    similar = get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if similar:
        hint = f"did you mean {' or '.join(by_lower[match] for match in similar)}?"
        if len(by_lower) <= MAX_LISTED_IN_FULL:
            hint += f" Choose from {', '.join(by_lower.values())}."
    else:
        hint = f"choose from {list_first(list(by_lower.values()), MOST_SHOWN)}."
    return UsageError(f"unknown {kind} {name!r}: {hint}")


def list_first(names: Sequence[str], max_shown: int) -> str:
    """Return the first `max_shown` names, abbreviated, as a list, such as "a, b and 2 more"."""
    more = f" and {len(names) - max_shown} more" if len(names) > max_shown else ""
    return ", ".join(map(abbreviate, names[:max_shown])) + more


def abbreviate(name: str) -> str:
    """Return a name, or if it is long, its first 80 characters and "..."."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def one_line(error: object) -> str:
    """Return an error's text on one line of at most 200 characters, for use in a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text without its period, for use in a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
