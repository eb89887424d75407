"""What a report is made of: tables of typed cells, without a word on how they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.results.baselines import Rank

#: None is a cell that was not measured: a dash, never 0.
Cell = Figure | Spread | PValue | Rank | str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. Keys tell rows apart, details describe them, values are what was measured.

    `measure` and `suite` name a value column in the tidy CSV; `carries_marks` is the column
    whose text gets the numbers of the row's footnotes.
    """

    key: str
    label: str
    role: Literal["key", "detail", "value"] = "key"
    align: Literal["left", "right"] = "left"
    suite: str = ""
    decimals: int = 2
    carries_marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells by column key, and marks: what a reader must know before using the figures."""

    cells: Mapping[str, Cell]
    marks: tuple[str, ...] = ()
    is_ours: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table. `context` holds what all rows share: dataset, norm, eps, arch."""

    name: str
    title: str
    context: Mapping[str, str | float]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All tables; `intervals` asks the formats for people to print Wilson intervals."""

    tables: tuple[Table, ...]
    intervals: bool = False
