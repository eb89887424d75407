"""Whether a comparison in a table is significant."""

from adrbench.report.statistics import PValue
from adrbench.report.tables import Row

#: A corrected p-value below this is significant.
LEVEL = 0.05


def is_significant(row: Row) -> bool:
    """Return whether the corrected p-value of a comparison is below LEVEL."""
    p = row.cells.get("p")
    return isinstance(p, PValue) and p.p < LEVEL
