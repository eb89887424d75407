"""Settings, each declared once: a dataclass field with its range, choices and help.

Checks, command-line flags, error texts and listings are derived from the declaration.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeGuard

from adrbench.errors import UsageError, argument, assign
from adrbench.runtime.arithmetic import AUTO

#: Larger whole numbers overflow wherever they meet a float or a tensor.
MAX_INT = 2**31 - 1
_KEY = "setting"
#: What messages call the types of settings.
KINDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "a tuple of numbers",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One declared setting.

    `low` and `high` bound numbers, `choices` are the allowed strings, and `in_pixels` marks radii
    and step sizes, which the command line writes as 8/255. A value may be None where `is_optional`.
    A setting with the choice "auto" is decided for each run, and stored as decided.
    `default` is None for a setting that a preset supplies. A setting that `is_later` was added
    after the first version: files without it imply its default, which fingerprints omit.
    `implied` is the value that files without the setting imply where that is not its default. A
    setting that changes nothing but rounding is not fingerprinted.
    """

    name: str
    kind: type
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    in_pixels: bool = False
    is_optional: bool = False
    is_later: bool = False
    implied: str | None = None
    is_fingerprinted: bool = True
    default: Any = None
    show_default: str | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether the setting is decided for the run by default."""
        return AUTO in self.choices

    @property
    def flag(self) -> str:
        """The name of the setting on the command line."""
        return flag(self.name)

    def check(self, value: Any) -> None:
        """Raise UsageError unless `value`, of the right type, is allowed."""
        if value is None and self.is_optional:
            return
        if self.choices:
            if value not in self.choices:
                allowed = " or ".join(self.choices)
                raise UsageError(f"{argument(self.name)} is {value!r}: choose {allowed}.")
        elif self.kind in (int, float) and not self.low <= value <= self.high:
            raise self._out_of_range(value)

    def check_type(self, value: Any) -> None:
        """Raise ValueError unless `value` has the type of the setting; an int is a float too."""
        allowed = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.kind is not bool):
            raise ValueError(f"field {self.name} should be {self.kind.__name__}, not {value!r:.40}")

    def parse(self, text: str) -> Any:
        """Parse the command-line value `text`; UsageError if it is invalid."""
        if self.kind is tuple:
            parts = [part for part in text.split(",") if part.strip()]
            return tuple(parse_fraction(part, self.name) for part in parts)
        return parse_fraction(text, self.name) if self.in_pixels else text

    def spell(self, value: Any) -> str:
        """Return the setting with `value`, as the caller writes it."""
        if value is None or value is False:
            return f"without {argument(self.name)}"
        if value is True:
            return f"with {argument(self.name, True)}"
        return assign(self.name, self.spell_value(value))

    def spell_value(self, value: Any) -> str:
        """Return `value` as it is written on the command line."""
        if isinstance(value, tuple):
            return ",".join(f"{number:g}" for number in value)
        if self.in_pixels:
            return format_eps(value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    def _out_of_range(self, value: float) -> UsageError:
        low, high = self.low, self.high
        bounds = f"from {low:g} to {high:g}"
        if high == MAX_INT:
            bounds = f"at least {low:g}" if value < low else f"at most {MAX_INT}"
        shown = value if isinstance(value, int) else f"{value:g}"
        return UsageError(f"{argument(self.name)} is {shown}: give a number {bounds}.")


def setting(
    *,
    help: str,  # noqa: A002
    default: Any = dataclasses.MISSING,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    in_pixels: bool = False,
    is_later: bool = False,
    implied: str | None = None,
    is_fingerprinted: bool = True,
    show_default: str | None = None,
) -> Any:
    """Declare a dataclass field as a setting; the arguments are those of `Setting`."""
    declared = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "in_pixels": in_pixels,
        "is_later": is_later,
        "implied": implied,
        "is_fingerprinted": is_fingerprinted,
        "show_default": show_default,
    }
    return dataclasses.field(default=default, metadata={_KEY: declared})


@cache
def settings_of(declaration: Hashable) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares, by name, in the order of its fields."""
    assert isinstance(declaration, type)
    return {one.name: one for one in _declared(declaration)}


def check_settings(values: Any) -> None:
    """Check every setting of a dataclass instance; UsageError names the first that is wrong."""
    for name, one in settings_of(values.__class__).items():
        one.check(getattr(values, name))


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether `value` is an int or a whole number of another library, such as NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is an int, a float, or a number of another library."""
    return isinstance(value, Real) and not isinstance(value, bool)


def convert(declared: Setting, value: object) -> Any:
    """Return a value given in Python as a plain value of the setting's type.

    Numbers and arrays of NumPy and of other libraries are converted.

    Raises:
        UsageError: for a value of another type.

    """
    if declared.kind is bool and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if declared.kind is int and is_whole_number(value):
        return int(value)
    if declared.kind is float and is_number(value):
        return float(value)
    if declared.kind is str and isinstance(value, str):
        return str(value)
    if declared.kind is tuple and not isinstance(value, str) and isinstance(value, Iterable):
        numbers = list(value)
        if all(map(is_number, numbers)):
            return tuple(map(float, numbers))
    allowed = " or ".join(map(repr, declared.choices)) or KINDS[declared.kind]
    raise wrong_type(declared.name, value, allowed)


def wrong_type(name: str, value: object, allowed: str) -> UsageError:
    """Return the error for an argument of a wrong type, of which `allowed` is the right one."""
    if isinstance(value, str) and "number" in allowed and is_fraction(value):
        return UsageError(f"{argument(name)} is {value!r}: write {value} without quotes.")
    shown = " ".join(repr(value).split())
    return UsageError(f"{argument(name)} is {shown:.40}: give {allowed}.")


def is_fraction(text: str) -> bool:
    """Return whether a text is a number such as 8/255 or 0.0314."""
    try:
        parse_fraction(text, "")
    except UsageError:
        return False
    return True


def parse_fraction(text: str, name: str) -> float:
    """Parse a number written as `8/255` or `0.0314`.

    Raises:
        UsageError: when it is neither.

    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{flag(name)} is {text!r}: write a number such as 8/255 or 0.0314.")
    return value


def format_eps(eps: float) -> str:
    """Return `eps` (a fraction of 1) as k/255 where it is within 1e-6 of that, else decimal."""
    k = round(eps * 255) if 0 < eps < 1 else 0
    if 0 < k < 255 and abs(eps - k / 255) < 1e-6:
        return f"{k}/255"
    return f"{eps:g}"


def _declared(declaration: type) -> Iterator[Setting]:
    hints = typing.get_type_hints(declaration)
    for field in dataclasses.fields(declaration):
        if _KEY not in field.metadata:
            continue
        options = typing.get_args(hints[field.name])
        is_optional = types.NoneType in options
        hint = options[0] if is_optional else hints[field.name]
        kind = typing.get_origin(hint) or hint
        default = None if field.default is dataclasses.MISSING else field.default
        yield Setting(
            name=field.name,
            kind=str if kind is typing.Literal else kind,
            is_optional=is_optional,
            default=default,
            **field.metadata[_KEY],
        )
