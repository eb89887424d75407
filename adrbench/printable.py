r"""Text from outside, such as names in a file, made safe to print before anything prints it.

A terminal obeys control characters, and a reader is misled by characters that reorder or hide
others. Such a character is shown as its escape, `\x1b`. Text is cleaned where it enters: where data
is read, where a name is taken from a file's name, in errors and in log records.
"""

import logging
import re
import unicodedata

#: Zero-width characters that Persian, Indic scripts and emoji need between their own characters.
_JOINERS = "\u200c\u200d"
_STRAY_JOINER = re.compile(
    rf"(?<![^\x00-\x7f{_JOINERS}])[{_JOINERS}]|[{_JOINERS}](?![^\x00-\x7f{_JOINERS}])"
)


class _Shown(dict[int, str]):
    """What `printable` shows for each character, by its number."""

    def __missing__(self, number: int) -> str:
        character = chr(number)
        is_kept = (
            character.isprintable()
            or character in _JOINERS
            or unicodedata.category(character) == "Zs"
        )
        self[number] = character if is_kept else _escape(character)
        return self[number]


_SHOWN = _Shown()


def printable(text: str) -> str:
    """Return `text` on one line, with an escape for each character that is not to be printed.

    These are controls, formats (such as bidirectional overrides and zero-width characters), line
    separators, surrogates, and private or unassigned characters; letters, marks, symbols and spaces
    of all scripts stay. Text that was cleaned does not change when it is cleaned again.
    """
    if text.isprintable():
        return text
    return _STRAY_JOINER.sub(lambda found: _escape(found[0]), text.translate(_SHOWN))


def is_printable(text: str) -> bool:
    """Return whether `printable` leaves `text` as it is."""
    return text.isprintable() or printable(text) == text


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose records are one printable line each."""
    logger = logging.getLogger(name)
    logger.addFilter(_clean_record)
    return logger


def _clean_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
