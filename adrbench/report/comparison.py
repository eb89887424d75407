"""Two seed groups compared under one attack, on the same images and training seeds."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adrbench.errors import RecordError
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.statistics import DIGITS, Figure, accuracy, difference
from adrbench.report.two_way_interval import estimate_difference
from adrbench.results.records import AttackRecord, unpack_outcomes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The robust accuracies of a method and its reference in percent, and their difference.

    `difference` has the interval of `two_way_interval`, and `p` and `detectable`, in points, are
    from there too: with a standard error of 0, only the p of 1 of a difference of 0.
    """

    reference: Figure | None
    robust: Figure | None
    difference: Figure | None
    p: float | None = None
    detectable: float | None = None

    @property
    def num_seeds(self) -> int:
        """The number of training seeds that both have."""
        return len(self.difference.seeds) if self.difference else 0


def compare(group: SeedGroup, reference: SeedGroup, attack: Attack) -> Comparison | None:
    """Return `group` against `reference` under `attack`; None without a seed that both have.

    A seed whose outcomes cannot be read is omitted.
    """
    import numpy as np

    mine, theirs = group.records.get(attack, {}), reference.records.get(attack, {})
    differences = {}
    for seed in group.seeds:
        if seed in mine and seed in theirs:
            try:
                differences[seed] = _robust(mine[seed]) - _robust(theirs[seed])
            except RecordError:
                continue
    n = group.identity.n
    if not differences or not n:
        return None
    ours = {seed: mine[seed].robust_correct for seed in differences}
    others = {seed: theirs[seed].robust_correct for seed in differences}
    found = Comparison(
        reference=accuracy(others, n),
        robust=accuracy(ours, n),
        difference=difference(ours, others, n),
    )
    estimate = estimate_difference(np.stack(list(differences.values()))) if n > 1 else None
    if found.difference is None or estimate is None:
        return found
    figure = found.difference
    if estimate.interval is not None:
        low, high = (_in_points(bound) for bound in estimate.interval)
        figure = replace(figure, interval=(low, high))
    detectable = None if estimate.detectable is None else _in_points(estimate.detectable)
    return replace(found, difference=figure, p=estimate.p, detectable=detectable)


def _robust(record: AttackRecord) -> "npt.NDArray[np.int8]":
    import numpy as np

    return unpack_outcomes(record.verdicts.robust, record.n).view(np.int8)


def _in_points(fraction: float) -> float:
    return round(100 * fraction, DIGITS)
