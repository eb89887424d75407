"""Tables for programs: JSON with every number, and one long tidy CSV."""

import csv
import io
import json
from collections.abc import Iterator

from adrbench.report.statistics import Figure, PValue, Spread
from adrbench.report.tables import Cell, Column, Report, Row, Table
from adrbench.results.baselines import Rank

SCHEMA = 1

#: What tells one line of the CSV from another.
KEYS = (
    *("table", "dataset", "norm", "eps", "arch", "method", "checkpoint", "chosen_on", "precision"),
    *("device", "processes", "suite", "measure"),
)
FIELDS = (*KEYS, "value", "std", "low", "high", "n", "seeds", "out_of", "ours", "source", "marks")


def as_json(report: Report) -> str:
    """Return `{"schema", "tables"}`: cells keep counts, n, seeds, std and interval.

    A cell that was not measured is null.
    """
    document = {"schema": SCHEMA, "tables": report.tables}
    return _encodable(json.dumps(document, indent=1, ensure_ascii=False, default=vars) + "\n")


def as_csv(report: Report) -> str:
    """Return one line per value: pandas selects by `table`, `suite` and `measure`.

    `value` is in percent for accuracies and in points for gaps, `low` and `high` are the 95 %
    Wilson interval, `seeds` counts the training seeds. What was not measured is an empty field,
    which pandas reads as NaN.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in report.tables:
        for row in table.rows:
            writer.writerows(_lines(table, row))
    return _encodable(stream.getvalue())


def _encodable(text: str) -> str:
    """Return `text` with a lone surrogate, which a record's JSON may spell, spelt so again."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _lines(table: Table, row: Row) -> Iterator[dict[str, object]]:
    known = {**table.context, **row.cells}
    shared = {key: known[key] for key in FIELDS if key in known} | {
        "table": table.name,
        "ours": row.is_ours,
        "marks": "; ".join(row.marks),
    }
    for column in table.columns:
        if column.role == "value":
            yield shared | _measured(column, row.cells.get(column.key))


def _measured(column: Column, cell: Cell) -> dict[str, object]:
    found: dict[str, object] = {"measure": column.key.partition(" ")[0], "value": cell}
    if column.suite:
        found["suite"] = column.suite
    if isinstance(cell, Spread):
        found |= {"value": cell.mean, "std": cell.std}
    if isinstance(cell, PValue):
        found["value"] = cell.p
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
