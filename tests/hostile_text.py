"""Text that would act on a terminal or mislead a reader, where it can be put, and what is printed.

Every string of a file is found by walking the file's content, so that new fields are covered.
"""

import copy
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from torch import Tensor

from adrbench.printable import is_printable
from runner import Outcome, command

#: A title and an erased screen, a C1 color, bidirectional and zero-width characters, line ends and
#: a forged error, NUL, DEL, a tag character, markup, a formula, and addresses.
ENCODABLE = (
    "=cmd|' /C calc'!A0\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u2028\r\nerror: forged\t"
    "\x00\x7f\U000e0041[red]![a](http://a.example)<b>www.a.example a@b.example"
)
HOSTILE = ENCODABLE + "\udc80"
#: The same without what a file's name cannot contain.
FILE_NAME = re.sub("[/\0]", "", HOSTILE)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
#: What Rich prints on a terminal: colors, and the movements of its live lines.
OF_RICH = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\d*[AGK]|\x1b\[2K|\x1b\[\?25[hl]|\r")


class Place(NamedTuple):
    """Where a string is: the keys down to a table or list, the last key, and whether it is that."""

    path: tuple[Any, ...]
    last: Any
    is_key: bool


def string_places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[Place]:
    """Yield the place of every string, and of every key, nested in `value`.

    Of a list, and of a table of tensors, only three entries count.
    """
    if isinstance(value, dict):
        is_uniform = all(isinstance(item, Tensor) for item in value.values())
        for key, item in list(value.items())[: 3 if is_uniform else None]:
            if isinstance(key, str):
                yield Place(above, key, True)
            yield from _places_of_item(item, above, key)
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            yield from _places_of_item(item, above, index)


def _places_of_item(item: Any, above: tuple[Any, ...], key: Any) -> Iterator[Place]:
    if isinstance(item, str):
        yield Place(above, key, False)
    yield from string_places(item, (*above, key))


def put(whole: Any, place: Place, text: str) -> Any:
    """Return `whole` with `text` at a place."""
    changed = copy.deepcopy(whole)
    inside = changed
    for key in place.path:
        inside = inside[key]
    if place.is_key:
        inside[text] = inside.pop(place.last)
    else:
        inside[place.last] = text
    return changed


def find_unprintable(value: Any) -> list[str]:
    """Return the strings and keys nested in JSON values that are not printable."""
    if isinstance(value, str):
        return [] if is_printable(value) else [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in find_unprintable(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in find_unprintable(one)]
    return []


def assert_clean(text: str) -> None:
    """Check that text consists of printable lines, none of which comes from `HOSTILE`."""
    lines = text.split("\n")
    assert [line for line in lines if not is_printable(line)] == []
    assert [line for line in lines if line.startswith("error: forged")] == []


def assert_clean_on_terminal(text: str) -> None:
    """Check what was printed on a terminal, but for the sequences of its display."""
    assert_clean(OF_RICH.sub("", text))


def run_clean(*arguments: str | Path) -> Outcome:
    """Run a command, which prints the traceback of an error too, and check what it prints."""
    outcome = command(*arguments, "--debug")
    assert_clean(outcome.out)
    assert_clean(outcome.err)
    errors = [line for line in outcome.lines if line.startswith("error: ")]
    assert len(errors) == bool(outcome.code), outcome.err
    return outcome


def assert_clean_report(shown: str, form: str) -> None:
    """Check a report in a format: nothing that acts on a terminal, a spreadsheet or a page."""
    assert_clean(shown)
    if form == "json":
        assert find_unprintable(json.loads(shown)) == []
    if form == "csv":
        cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "@", "+"))] == []
    if form == "markdown":
        parts = [part for token in MARKDOWN.parse(shown) for part in token.children or ()]
        html = {part.content for part in parts if part.type == "html_inline"}
        assert html <= {"<!-- -->"}
        kinds = {part.type for part in parts}
        assert kinds <= {"text", "text_special", "softbreak", "html_inline"}
        assert not re.search(r"(?<!\\)://|www\.|@(?!<)", shown)
