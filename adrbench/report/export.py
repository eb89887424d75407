"""Machine-readable tables: JSON with every number, and a CSV with one line per value."""

import csv
import io
import json
from collections.abc import Iterator

from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.report.tables import Cell, Column, Report, Row, Table
from adrbench.results.baselines import Rank

SCHEMA = 1

#: The columns that together identify a line of the CSV.
KEYS = (
    *("table", "dataset", "norm", "eps", "arch", "method", "against", "checkpoint", "chosen_on"),
    *("precision", "device", "processes", "suite", "outputs", "class", "predicted", "measure"),
)
#: What a spreadsheet takes for the start of a formula, in a full-width form too.
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
FIELDS = (*KEYS, "value", "std", "low", "high", "n", "seeds", "out_of", "ours", "source", "marks")


def as_json(report: Report) -> str:
    """Return `{"schema", "tables"}`; a figure has its counts, n, seeds, std and interval.

    A cell that was not measured is null.
    """
    document = {"schema": SCHEMA, "tables": report.tables}
    return json.dumps(document, indent=1, ensure_ascii=False, default=as_plain) + "\n"


#: Fields of columns that only concern how they are shown.
LAYOUT = frozenset(("interval_decimals", "most_characters"))


def as_plain(value: object) -> dict[str, object]:
    """Return a part of a report as JSON values by name; footnotes are called marks there."""
    names = {"footnotes": "marks", "carries_footnotes": "carries_marks"}
    return {names.get(name, name): item for name, item in vars(value).items() if name not in LAYOUT}


def as_csv(report: Report) -> str:
    """Return one line per value: pandas selects by `table`, `suite` and `measure`.

    `value` is in percent for accuracies and in points for gaps and differences, `low` and `high`
    are the 95 % interval, `seeds` counts the training seeds; a p-value is `out_of` the comparisons
    that it is corrected for. A value that was not measured is an empty field, which pandas reads as
    NaN. Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in report.tables:
        for row in table.rows:
            for line in _lines(table, row):
                writer.writerow({name: _as_no_formula(value) for name, value in line.items()})
    return stream.getvalue()


def _as_no_formula(value: object) -> object:
    """Return text such that a spreadsheet does not take it for a formula; numbers as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _lines(table: Table, row: Row) -> Iterator[dict[str, object]]:
    known = {**table.context, **row.cells}
    shared = {key: known[key] for key in FIELDS if key in known} | {
        "table": table.name,
        "ours": row.is_ours,
        "marks": "; ".join(row.footnotes),
    }
    for column in table.columns:
        if column.role == "value":
            yield shared | _measured(column, row.cells.get(column.key))


def _measured(column: Column, cell: Cell) -> dict[str, object]:
    found: dict[str, object] = {"measure": column.key.partition(" ")[0], "value": cell}
    if column.suite:
        found["suite"] = column.suite
    if column.eps is not None:
        found["eps"] = column.eps
    if isinstance(cell, Spread):
        found |= {"value": cell.mean, "std": cell.std}
    if isinstance(cell, PValue):
        found |= {"value": cell.p, "out_of": cell.comparisons}
    if isinstance(cell, Rank):
        found |= {"value": cell.place, "out_of": cell.of}
    if isinstance(cell, Figure):
        low, high = cell.interval or (None, None)
        found |= {
            "value": cell.mean,
            "std": cell.std,
            "low": low,
            "high": high,
            "n": cell.n,
            "seeds": len(cell.seeds),
        }
    return found
