"""Where tables, charts and outputs belong: a data set and a threat model."""

from typing import NamedTuple

from adrbench.config.declare import format_eps
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.tables import Table


class Place(NamedTuple):
    """A data set, norm and eps as text; norm and eps are "" for what belongs to several."""

    dataset: str
    norm: str = ""
    eps: str = ""


def place_of(table: Table) -> Place | None:
    """Return the place that the rows of a table share, None if they are of several data sets."""
    dataset, norm, eps = (table.context.get(name) for name in ("dataset", "norm", "eps"))
    if dataset is None or norm is None:
        return None
    return Place(str(dataset), str(norm), format_eps(eps) if isinstance(eps, float) else "")


def place_of_outputs(statistics: OutputStatistics) -> Place:
    """Return the place of the outputs of a model."""
    group = statistics.group
    record = next(iter(group.records[statistics.attack].values()))
    return Place(group.dataset, record.threat_model.norm, format_eps(group.eps))
