"""The content of a report: tables of typed cells, independent of how they are rendered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.results.baselines import Rank

if TYPE_CHECKING:
    from adrbench.report.outputs.statistics import OutputStatistics

#: None was not measured: it is shown as a dash, never as 0.
Cell = Figure | Spread | PValue | Rank | str | int | float | None


#: Longer cells are cut, since every row is as wide as the widest.
MOST_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: a key distinguishes rows, a detail describes them, a value was measured.

    `suite` and `eps` are those of a value column in the CSV; `absent` is a value of a key or detail
    that says nothing to a reader: human-readable formats show a dash, or no column if all rows
    have it; `carries_footnotes` marks the column
    whose text gets the numbers of the row's footnotes; `annotation` is what figures show beside
    their mean: the deviation over seeds, the interval, or nothing. `interval_decimals` are those of
    an interval that is shown besides. Texts of more than `most_characters` are cut.
    """

    key: str
    label: str
    role: Literal["key", "detail", "value"] = "key"
    align: Literal["left", "right"] = "left"
    suite: str = ""
    eps: float | None = None
    absent: str = ""
    decimals: int = 2
    interval_decimals: int = 1
    most_characters: int = MOST_CHARACTERS
    carries_footnotes: bool = False
    annotation: Literal["deviation", "interval"] | None = "deviation"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells by column key, and footnotes: caveats on the values.

    A row that is not `is_shown` is only in the machine-readable formats.
    """

    cells: Mapping[str, Cell]
    footnotes: tuple[str, ...] = ()
    is_ours: bool = True
    is_shown: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table; `context` holds what all rows share: dataset, norm, eps, arch.

    `unnumbered` are footnotes of some rows whose text says of which; they need no numbers. A table
    that `is_repeated` shows only values that another table also shows, and is exported only to the
    machine-readable formats. One that `is_detail` is too, unless it is selected by name.
    """

    name: str
    title: str
    context: Mapping[str, str | float]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    unnumbered: tuple[str, ...] = ()
    is_repeated: bool = False
    is_detail: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """All tables; with `intervals`, the human-readable formats include Wilson intervals.

    `notes` apply to all tables and appear once, after them. `outputs` are the statistics behind the
    tables of outputs, for figures. A report `is_selection` if its tables were selected by name.
    """

    tables: tuple[Table, ...]
    intervals: bool = False
    notes: tuple[str, ...] = ()
    outputs: "tuple[OutputStatistics, ...]" = ()
    is_selection: bool = False

    @property
    def shown_tables(self) -> tuple[Table, ...]:
        """The tables in the human-readable formats."""
        return tuple(one for one in self.tables if not (one.is_repeated or one.is_detail))
