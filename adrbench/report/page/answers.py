"""What a section's tables say, in sentences: the best method, its significance, overfitting.

Of rows on fewer images or training seeds than others, none is called the best.
"""

from collections.abc import Iterable, Iterator, Sequence

from adrbench.report import columns as c
from adrbench.report.cell_text import cut
from adrbench.report.figures.differences import LEVEL, is_significant
from adrbench.report.statistics import Figure, PValue
from adrbench.report.tables import Column, Row, Table

#: At most this many comparisons are named.
MOST_NAMED = 3


def answer(tables: Sequence[Table]) -> tuple[str, ...]:
    """Return sentences on the tables of one data set and threat model, the most important first."""
    by_name = {table.name: table for table in tables}
    accuracies, paired = by_name.get("robust accuracy"), by_name.get("paired")
    sentences: list[str] = []
    if accuracies:
        sentences += _name_best(accuracies, paired)
    if paired:
        sentences += _count_significant(paired)
    if "robust overfitting" in by_name:
        sentences += _describe_overfitting(by_name["robust overfitting"])
    return tuple(sentences)


def _name_best(table: Table, paired: Table | None) -> Iterator[str]:
    """Yield which row is the most robust under the strongest attack, and how it compares."""
    largest = max(map(_size, table.rows), default=(0, 0))
    rows = [row for row in table.rows if _size(row) == largest]
    attacks = [
        column
        for column in table.columns
        if column.suite and any(row.cells.get(column.key) for row in rows)
    ]
    if not attacks:
        return
    attack = attacks[-1]
    measured = [row for row in rows if row.cells.get(attack.key)]
    best, *others = sorted(measured, key=lambda row: -_mean(row, attack))
    epoch = _text(best, c.CHECKPOINT)
    where = f" at the {epoch} epoch" if epoch in ("best", "last") else ""
    sentence = (
        f"{_name(best)} has the highest robust accuracy under {cut(attack.label)}{where}: "
        f"{_figure(best, attack)} ({largest[0]:,} images, {_seeds(best)})"
    )
    if others:
        sentence += f"; next is {_name(others[0])} with {_figure(others[0], attack)}"
    yield f"{sentence}."
    for row in _find_comparisons(best, attack, paired):
        yield _describe_comparison(row)


def _size(row: Row) -> tuple[int, int]:
    """Return the number of images and of training seeds of a row."""
    n, seeds = row.cells.get(c.N.key), row.cells.get(c.SEEDS.key)
    return (n if isinstance(n, int) else 0, seeds if isinstance(seeds, int) else 0)


def _find_comparisons(best: Row, attack: Column, paired: Table | None) -> list[Row]:
    """Return the comparisons of a row of the main table under `attack`."""
    same = (c.ARCH, c.METHOD, c.CHECKPOINT, c.N)
    return [
        row
        for row in (paired.rows if paired else ())
        if row.cells.get(c.SUITE.key) == attack.label
        and all(row.cells.get(one.key) == best.cells.get(one.key) for one in same)
        and isinstance(row.cells.get("difference"), Figure)
    ]


def _describe_comparison(row: Row) -> str:
    figure, p = row.cells["difference"], row.cells.get("p")
    assert isinstance(figure, Figure)
    interval = ""
    if figure.interval:
        interval = f" [{figure.interval[0]:+.1f}, {figure.interval[1]:+.1f}]"
    verdict = "without a p-value"
    if isinstance(p, PValue):
        verdict = f"{'' if is_significant(row) else 'not '}significant (corrected p {p.p:.3f})"
    elif len(figure.seeds) > 1:
        verdict = "outside the family of corrected comparisons"
    return (
        f"{_name(row)} against {_text(row, c.AGAINST)}: {figure.mean:+.1f} points{interval}, "
        f"{verdict}."
    )


def _count_significant(table: Table) -> Iterator[str]:
    """Yield how many comparisons are significant, and the largest of them."""
    tested = [row for row in table.rows if isinstance(row.cells.get("p"), PValue)]
    found = [row for row in tested if is_significant(row)]
    if not tested:
        yield "No comparison has a p-value: that takes two training seeds or more of both methods."
        return
    sentence = (
        f"{len(found) or 'None'} of {len(tested)} comparisons with a control over several seeds "
        f"{'is' if len(found) < 2 else 'are'} significant (corrected p below {LEVEL:g})"
    )
    largest = sorted(found, key=lambda row: -abs(_mean(row, _DIFFERENCE)))[:MOST_NAMED]
    named = [
        f"{_name(row)} against {_text(row, c.AGAINST)} {_mean(row, _DIFFERENCE):+.1f} points "
        f"({_text(row, c.SUITE)}, {_text(row, c.CHECKPOINT)} epoch)"
        for row in largest
    ]
    which = "the largest: " if len(found) > len(named) else ""
    yield f"{sentence}: {which}{'; '.join(named)}." if named else f"{sentence}."


def _describe_overfitting(table: Table) -> Iterator[str]:
    """Yield the largest and the smallest loss from the best to the last epoch."""
    suites = dict.fromkeys(row.cells.get(c.SUITE.key) for row in table.rows)
    suite = list(suites)[-1]
    rows = [
        row
        for row in table.rows
        if row.cells.get(c.SUITE.key) == suite and isinstance(row.cells.get("gap"), Figure)
    ]
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: -_mean(row, _GAP))
    most, least = ordered[0], ordered[-1]
    sentence = (
        f"From the best to the last epoch, under {cut(str(suite))}, {_name(most)} {_change(most)}"
    )
    if len(rows) > 1:
        sentence += f", the most of {len(rows)} rows, and {_name(least)} {_change(least)}"
    yield f"{sentence}."


def _change(row: Row) -> str:
    gap = row.cells["gap"]
    assert isinstance(gap, Figure)
    deviation = "" if gap.std is None else f" ± {gap.std:.1f}"
    return f"{'loses' if gap.mean >= 0 else 'gains'} {abs(gap.mean):.1f}{deviation} points"


def _mean(row: Row, column: Column) -> float:
    cell = row.cells.get(column.key)
    assert isinstance(cell, Figure)
    return cell.mean


def _figure(row: Row, column: Column) -> str:
    figure = row.cells[column.key]
    assert isinstance(figure, Figure)
    deviation = "" if figure.std is None else f" ± {figure.std:.1f}"
    return f"{figure.mean:.1f}{deviation} %"


def _seeds(row: Row) -> str:
    count = row.cells.get(c.SEEDS.key)
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _name(row: Row) -> str:
    return _text(row, c.METHOD)


def _text(row: Row, column: Column) -> str:
    return cut(str(row.cells.get(column.key) or ""))


def _find(columns: Iterable[Column], key: str) -> Column:
    return next(column for column in columns if column.key == key)


_DIFFERENCE, _GAP = _find(c.PAIRED, "difference"), _find(c.OVERFITTING, "gap")
