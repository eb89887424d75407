"""Fitting a table into the width of a terminal.

If a table is too wide, columns that are the same in all rows are removed first, then headers are
wrapped, then text; only then is the table split into parts, each with the keys.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from rich.cells import cell_len

from adrbench.report.cell_text import MISSING, Grid

#: Blank columns between two cells.
GUTTER = 2
#: Text wraps to no fewer columns than this.
NARROWEST = 10
#: Longer words of a header, and longer parts of a name, are broken.
LONGEST_WORD, LONGEST_PART = 12, 16
#: After a space or a separator, not within 8/255, and before a capital as in ImageNet.
_BREAKS = re.compile(r"(?<= )|(?<=[-_+/:.])(?=[^\W\d])|(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The width of each column, by its index, in each part; `constant` are columns left out."""

    parts: tuple[Mapping[int, int], ...]
    constant: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Widths:
    """The widths of a column: as it is, with its header wrapped, with its text wrapped too.

    `cells` counts its cells by their width.
    """

    natural: int
    header_wrapped: int
    narrowest: int
    cells: Mapping[int, int]

    def count_lines(self, width: int) -> int:
        """Return about how many lines the cells take in a column of `width`."""
        return sum(count * -(-cell // width) for cell, count in self.cells.items())


def fit(text: Grid, width: int) -> Fitted:
    """Return the columns and widths of each part of a table that fits `width` where possible."""
    widths = [_measure(text, i) for i in range(len(text.columns))]
    everything = range(len(widths))
    if _total(widths[i].natural for i in everything) <= width:
        return Fitted(parts=({i: widths[i].natural for i in everything},))
    constant = tuple(i for i in everything if _is_constant(text, i))
    shown = [i for i in everything if i not in constant]
    parts = _split(text, shown, widths, width)
    return Fitted(parts=tuple(_shrink(part, widths, width) for part in parts), constant=constant)


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of `text`, of at most `width` columns, broken between its parts."""
    if cell_len(text) <= width:
        return [text]
    lines, line = [], ""
    for piece in chain.from_iterable(_chop(part, width) for part in _BREAKS.split(text)):
        if line and cell_len((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()]


def _chop(piece: str, width: int) -> list[str]:
    """Return `piece` in parts of at most `width` columns."""
    if cell_len(piece.rstrip()) <= width:
        return [piece]
    parts = [""]
    for character in piece:
        if cell_len(parts[-1] + character) > width:
            parts.append("")
        parts[-1] += character
    return parts


def _measure(text: Grid, index: int) -> _Widths:
    column = text.columns[index]
    header = cell_len(column.label)
    word = min(max(map(cell_len, column.label.split()), default=0), LONGEST_WORD)
    counts = Counter(cell_len(row[index]) for row in text.cells)
    cells = max(counts, default=0)
    wrapped_header = min(header, max(word, NARROWEST))
    is_text = column.role != "value" and column.align == "left"
    parts = {part for row in text.cells for part in _BREAKS.split(row[index])} if is_text else ()
    part = min(max((cell_len(part.rstrip()) for part in parts), default=0), LONGEST_PART)
    return _Widths(
        natural=max(header, cells),
        header_wrapped=max(wrapped_header, cells),
        narrowest=max(word, part, min(cells, NARROWEST)) if is_text else max(word, cells),
        cells=counts,
    )


def _is_constant(text: Grid, index: int) -> bool:
    """Return whether a column is the same in all rows; a value only if it was never measured."""
    column = text.columns[index]
    if column.carries_footnotes or len(text.cells) < 2:
        return False
    different = {row[index] for row in text.cells}
    return different == {MISSING} if column.role == "value" else len(different) == 1


def _split(
    text: Grid, shown: Sequence[int], widths: Sequence[_Widths], width: int
) -> list[list[int]]:
    """Return the columns of each part: as few parts as possible, and these as equal as possible.

    Nothing wraps where that would not save a part.
    """
    levels = (
        [own.natural for own in widths],
        [own.header_wrapped for own in widths],
        [own.narrowest for own in widths],
    )
    fewest = len(_fill(text, shown, levels[-1], width))
    level = next(own for own in levels if len(_fill(text, shown, own, width)) == fewest)
    if fewest == 1:
        return [list(shown)]
    widest = width
    while widest > 1 and len(_fill(text, shown, level, widest - 1)) == fewest:
        widest -= 1
    return _fill(text, shown, level, widest)


def _fill(text: Grid, shown: Sequence[int], widths: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each part, filled one after another; each has the keys."""
    keys = [i for i in shown if text.columns[i].role == "key"]
    parts: list[list[int]] = [[]]
    for i in shown:
        if i in keys:
            continue
        if parts[-1] and _total(widths[j] for j in (*keys, *parts[-1], i)) > width:
            parts.append([])
        parts[-1].append(i)
    return [sorted((*keys, *part)) for part in parts]


def _shrink(part: Sequence[int], widths: Sequence[_Widths], width: int) -> dict[int, int]:
    """Return the widths of one part, narrowed where that adds the fewest lines to its cells."""
    found = {i: widths[i].natural for i in part}
    while _total(found.values()) > width:
        wider = [i for i in part if found[i] > widths[i].narrowest]
        if not wider:
            break
        added = {
            i: widths[i].count_lines(found[i] - 1) - widths[i].count_lines(found[i]) for i in wider
        }
        found[min(wider, key=lambda i: (added[i], -found[i]))] -= 1
    return found


def _total(widths: Iterable[int]) -> int:
    own = tuple(widths)
    return sum(own) + GUTTER * (len(own) - 1)


def describe_constant(text: Grid, constant: Iterable[int]) -> str:
    """Return the columns that are the same in all rows, such as "arch resnet18; n 360"."""
    shown = ((text.columns[i].label, text.cells[0][i]) for i in constant)
    return "; ".join(f"{label} {cell}" for label, cell in shown if cell != MISSING)
