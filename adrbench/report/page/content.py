"""The content of a page: sections of tables, charts and galleries, independent of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adrbench.report.figures.chart import Chart
from adrbench.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Images side by side, by what they show, and lines of text.

    Images are data URIs that `to_data_uri` made; they are inserted into the page as they are.

    A picture that `is_marked` has a colored edge.
    """

    images: Mapping[str, str]
    lines: tuple[str, ...]
    is_marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures with a title, and a sentence on what they show."""

    title: str
    text: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A heading with text, charts, galleries and tables.

    `lines` are a list below the text. Tables are folded away unless the block `is_unfolded`.
    """

    title: str
    text: str = ""
    lines: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    tables: tuple[Table, ...] = ()
    is_unfolded: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A part of the page that its navigation links to; `answers` stand first."""

    title: str
    answers: tuple[str, ...] = ()
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """A whole page: its title, facts by name, and sections."""

    title: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
