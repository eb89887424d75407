"""The most robust rows of a section: under which attack, at which epoch, and among which rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adrbench.report import columns as c
from adrbench.report.attack_labels import ENSEMBLES
from adrbench.report.row_names import name_rows
from adrbench.report.statistics import Figure
from adrbench.report.tables import Row, Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A row with its robust accuracy under one attack at one epoch."""

    row: Row
    name: str
    suite: str
    epoch: str
    figure: Figure

    @property
    def size(self) -> tuple[int, int]:
        """The number of images and of training seeds."""
        return self.figure.n, len(self.figure.seeds)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The rows on the most images and, of these, the most seeds, the most robust first.

    `higher` are rows on fewer images or seeds whose accuracy is above that of the first.
    """

    candidates: tuple[Candidate, ...]
    higher: tuple[Candidate, ...]

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The rows of the highest accuracy, several where they are equal as shown."""
        first = self.candidates[0]
        shown = round(first.figure.mean, 1)
        return tuple(one for one in self.candidates if round(one.figure.mean, 1) == shown)


def rank(accuracies: Table, overfitting: Table | None, *, is_last_first: bool) -> Ranking | None:
    """Return the ranking of a section's rows under its strongest attack; None without any.

    With `is_last_first`, last epochs are ranked if there are any.
    """
    candidates = list(_find_last(overfitting)) if overfitting and is_last_first else []
    candidates = candidates or list(_find_main(accuracies))
    if not candidates:
        return None
    suite = _choose_attack(candidates)
    same = [one for one in candidates if one.suite == suite]
    largest = max(one.size for one in same)
    ranked = sorted((one for one in same if one.size == largest), key=lambda one: -one.figure.mean)
    top = ranked[0].figure.mean
    higher = [one for one in same if one.size != largest and one.figure.mean > top]
    return Ranking(candidates=tuple(ranked), higher=tuple(higher))


def _find_main(table: Table) -> Iterator[Candidate]:
    """Yield the rows of the robust-accuracy table under each attack."""
    for row, name in zip(
        table.rows, name_rows(table.rows, without=(c.CHECKPOINT, c.N, c.SEEDS)), strict=True
    ):
        for column in table.columns:
            figure = row.cells.get(column.key)
            if column.suite and isinstance(figure, Figure):
                epoch = str(row.cells.get(c.CHECKPOINT.key) or "")
                yield Candidate(row=row, name=name, suite=column.suite, epoch=epoch, figure=figure)


def _find_last(table: Table) -> Iterator[Candidate]:
    """Yield the last epochs of the overfitting table."""
    names = name_rows(table.rows, without=(c.SUITE, c.N, c.SEEDS))
    for row, name in zip(table.rows, names, strict=True):
        figure = row.cells.get("last")
        if isinstance(figure, Figure):
            suite = str(row.cells[c.SUITE.key])
            yield Candidate(row=row, name=name, suite=suite, epoch="last", figure=figure)


def _choose_attack(candidates: Sequence[Candidate]) -> str:
    """Return the strongest attack on the most images that more than half of the rows have.

    That is an ensemble, or else the attack of the lowest mean accuracy.
    """
    by_suite: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_suite.setdefault(one.suite, []).append(one)

    compared: dict[str, list[Candidate]] = {}
    n = max(one.figure.n for one in candidates)
    for suite, own in by_suite.items():
        size = max(one.size for one in own)
        if size[0] == n:
            compared[suite] = [one for one in own if one.size == size]
    most = max(map(len, compared.values()))

    def order(suite: str) -> tuple[bool, float]:
        own = compared[suite]
        mean = sum(one.figure.mean for one in own) / len(own)
        return (suite.partition(" ")[0] in ENSEMBLES, -mean)

    return max((suite for suite, own in compared.items() if 2 * len(own) > most), key=order)
