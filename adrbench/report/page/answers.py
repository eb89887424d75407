"""What a section's tables say, in sentences: the best method, its significance, overfitting."""

import math
from collections.abc import Iterator, Sequence

from adrbench.report import columns as c
from adrbench.report.cell_text import cut, format_cell
from adrbench.report.page.best_row import Candidate, Ranking, rank
from adrbench.report.row_names import describe_epoch, name_rows
from adrbench.report.significance import LEVEL, is_significant
from adrbench.report.statistics import Figure, PValue
from adrbench.report.tables import Column, Row, Table

#: At most this many comparisons or rows are named.
MOST_NAMED = 3
#: A smaller gap, in points, is shown as none.
SMALLEST_GAP = 0.05


def answer(tables: Sequence[Table]) -> tuple[str, ...]:
    """Return sentences on the tables of one data set and threat model, the most important first."""
    by_name = {table.name: table for table in tables}
    accuracies, paired = by_name.get("robust accuracy"), by_name.get("paired")
    overfitting = by_name.get("robust overfitting")
    sentences: list[str] = []
    ranking = None
    if accuracies:
        ranking = rank(accuracies, overfitting, is_last_first=is_last_first(tables))
    if ranking:
        sentences.append(_name_best(ranking))
    if paired:
        sentences += _count_significant(paired, ranking)
    if ranking:
        sentences += _name_higher(ranking)
        if paired and len(ranking.best) == 1:
            sentences += map(_describe_comparison, _find_comparisons(ranking.best[0], paired))
    if accuracies:
        sentences += _name_warned(accuracies)
    if overfitting:
        sentences += _describe_overfitting(overfitting, ranking)
    return tuple(sentences)


def is_last_first(tables: Sequence[Table]) -> bool:
    """Return whether the comparisons of last epochs come before those of best epochs."""
    rows = [row for table in tables if table.name == "paired" for row in table.rows]
    return bool(rows) and rows[0].cells.get(c.CHECKPOINT.key) == "last"


def _name_best(ranking: Ranking) -> str:
    """Return which rows are the most robust."""
    best, candidates = ranking.best, ranking.candidates
    first = candidates[0]
    where = f"under {cut(first.suite)}{_describe_epoch(first)}"
    size = _size(first)
    shown = _show(first.figure)
    if len(candidates) == 1:
        return f"{first.name} has a robust accuracy of {shown} {where} ({size})."
    if len(best) > 1:
        names = " and ".join(one.name for one in best[:MOST_NAMED])
        return f"{names} share the highest robust accuracy {where}, {shown} ({size})."
    second = candidates[1]
    return (
        f"{first.name} has the highest robust accuracy {where}, of {len(candidates)} rows with "
        f"{size}: {shown}; next is {second.name} with {_show(second.figure)}."
    )


def _describe_epoch(candidate: Candidate) -> str:
    """Return the epoch of a candidate; the table of robust accuracy has the best one."""
    where = " (see robust overfitting)" if candidate.epoch == "last" else ""
    return f"{describe_epoch(candidate.epoch)}{where}"


def _name_warned(table: Table) -> Iterator[str]:
    """Yield which rows have warnings about the attack or the model."""
    named = name_rows(table.rows, without=(c.CHECKPOINT, c.N, c.SEEDS))
    warned = [
        name
        for name, row in zip(named, table.rows, strict=True)
        if any(note.startswith("warning") for note in row.footnotes)
    ]
    if warned:
        names = ", ".join(dict.fromkeys(warned))
        yield f"Evaluations have warnings, see the notes below the table: {cut(names)}."


def _name_higher(ranking: Ranking) -> Iterator[str]:
    """Yield which rows are not ranked but higher."""
    if ranking.higher:
        higher = [f"{one.name} {_show(one.figure)} ({_size(one)})" for one in ranking.higher]
        left = len(higher) - MOST_NAMED
        more = f" and {left} more" if left > 0 else ""
        yield f"Higher, but on fewer images or seeds: {'; '.join(higher[:MOST_NAMED])}{more}."


def _find_comparisons(best: Candidate, paired: Table) -> list[Row]:
    """Return the comparisons of a row with its controls."""
    same = (c.ARCH, c.METHOD, c.N)
    return [
        row
        for row in paired.rows
        if (row.cells.get(c.SUITE.key), row.cells.get(c.CHECKPOINT.key)) == (best.suite, best.epoch)
        and all(row.cells.get(one.key) == best.row.cells.get(one.key) for one in same)
        and isinstance(row.cells.get("difference"), Figure)
    ]


def _describe_comparison(row: Row) -> str:
    difference = format_cell(row.cells["difference"], _DIFFERENCE, intervals=False)
    p = row.cells.get("p")
    verdict = "without a p-value"
    if isinstance(p, PValue):
        verdict = f"{'' if is_significant(row) else 'not '}significant ({_describe_p(row)})"
    (name,) = name_rows([row])
    return f"{name}: {difference} points, {verdict}."


def _describe_p(row: Row) -> str:
    """Return the p-value of a comparison, over how many it is corrected, and its seeds."""
    p = row.cells["p"]
    assert isinstance(p, PValue)
    among = f" corrected over {p.comparisons}" if p.comparisons > 1 else ""
    return f"p {_show_p(p)}{among}, {_count(_integer(row, c.SEEDS), 'seed')}"


def _count_significant(table: Table, ranking: Ranking | None) -> Iterator[str]:
    """Yield how many comparisons are significant, and some: those under the ranked attack first."""
    tested = [row for row in table.rows if isinstance(row.cells.get("p"), PValue)]
    if not tested:
        seeds = max((_integer(row, c.SEEDS) for row in table.rows), default=0)
        reason = (
            "that takes two training seeds or more of both methods"
            if seeds < 2
            else "their outcomes do not vary enough for a test"
        )
        yield f"No comparison has a p-value: {reason}."
        return
    found = [row for row in tested if is_significant(row)]
    verb = "are" if len(found) > 1 else "is"
    sentence = (
        f"{len(found) or 'None'} of {_count(len(tested), 'comparison')} with a control over "
        f"several seeds {verb} significant (p below {LEVEL:g}, corrected within each attack and "
        "epoch)"
    )
    ranked = (ranking.candidates[0].suite, ranking.candidates[0].epoch) if ranking else None

    def order(row: Row) -> tuple[bool, float]:
        own = (row.cells.get(c.SUITE.key), row.cells.get(c.CHECKPOINT.key))
        return (own != ranked, -abs(_mean(row, _DIFFERENCE)))

    largest = sorted(found, key=order)[:MOST_NAMED]
    named = [
        f"{name} {_mean(row, _DIFFERENCE):+.1f} points under {_describe_test(row)}"
        for name, row in zip(
            name_rows(largest, without=(c.SUITE, c.CHECKPOINT, c.SEEDS)), largest, strict=True
        )
    ]
    which = "among them " if len(found) > len(named) else ""
    yield f"{sentence}: {which}{'; '.join(named)}." if named else f"{sentence}."


def _describe_test(row: Row) -> str:
    """Return the attack and the epoch of a comparison, and its p-value."""
    epoch = describe_epoch(row.cells.get(c.CHECKPOINT.key))
    return f"{cut(str(row.cells.get(c.SUITE.key)))}{epoch} ({_describe_p(row)})"


def _describe_overfitting(table: Table, ranking: Ranking | None) -> Iterator[str]:
    """Yield how robust accuracy changes from the best to the last epoch, of comparable rows."""
    rows = [row for row in table.rows if isinstance(row.cells.get("gap"), Figure)]
    suites = [str(row.cells[c.SUITE.key]) for row in rows]
    if not rows:
        return
    is_ranked = ranking is not None and ranking.candidates[0].suite in suites
    suite = ranking.candidates[0].suite if ranking and is_ranked else suites[-1]
    rows = [row for row in rows if row.cells[c.SUITE.key] == suite]
    largest = max((_integer(row, c.N), _integer(row, c.SEEDS)) for row in rows)
    rows = [row for row in rows if (_integer(row, c.N), _integer(row, c.SEEDS)) == largest]
    named = list(zip(name_rows(rows, without=(c.SUITE,)), rows, strict=True))
    named.sort(key=lambda pair: -_mean(pair[1], _GAP))
    (most, most_row), (least, least_row) = named[0], named[-1]
    sentence = f"From the best to the last epoch, under {cut(suite)}, {most} {_change(most_row)}"
    if len(named) > 1:
        sentence += f", the most of {len(named)} rows; {least} {_change(least_row)}"
    yield f"{sentence}."
    yield from _count_clear(table)


def _count_clear(table: Table) -> Iterator[str]:
    """Yield in how many rows, under any attack, the drop exceeds its variation over seeds."""
    rows = [
        row
        for row in table.rows
        if isinstance(gap := row.cells.get("gap"), Figure) and len(gap.seeds) > 1
    ]
    if not rows:
        return
    named = zip(name_rows(rows, without=(c.N, c.SEEDS)), rows, strict=True)
    clear = [name for name, row in named if _is_clear(row)]
    shown = f": {'; '.join(clear[:MOST_NAMED])}" if clear else ""
    more = f" and {len(clear) - MOST_NAMED} more" if len(clear) > MOST_NAMED else ""
    yield (
        f"Under all attacks, the drop exceeds its variation over seeds in {len(clear)} of "
        f"{_count(len(rows), 'row')}{shown}{more} (uncorrected 95 % t-interval above 0)."
    )


def _is_clear(row: Row) -> bool:
    """Return whether the 95 % t-interval of a gap over seeds lies above 0."""
    from scipy.special import stdtrit

    gap = row.cells["gap"]
    assert isinstance(gap, Figure)
    k = len(gap.seeds)
    if gap.std is None or k < 2:
        return False
    return gap.mean > float(stdtrit(k - 1, 0.975)) * gap.std / math.sqrt(k)


def _change(row: Row) -> str:
    gap = row.cells["gap"]
    assert isinstance(gap, Figure)
    if abs(gap.mean) < SMALLEST_GAP:
        return "does not change"
    deviation = "" if gap.std is None else f" ± {gap.std:.1f}"
    return f"{'loses' if gap.mean > 0 else 'gains'} {abs(gap.mean):.1f}{deviation} points"


def _show(figure: Figure) -> str:
    deviation = "" if figure.std is None else f" ± {figure.std:.1f}"
    return f"{figure.mean:.1f}{deviation} %"


def _show_p(p: PValue) -> str:
    """Return a p-value with three decimals, or more where it would round to the level."""
    if p.p < 0.001:
        return "below 0.001"
    return f"{p.p:.3f}" if round(p.p, 3) != LEVEL else f"{p.p:.2g}"


def _size(candidate: Candidate) -> str:
    n, num_seeds = candidate.size
    return f"{n:,} images, {_count(num_seeds, 'seed')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _integer(row: Row, column: Column) -> int:
    value = row.cells.get(column.key)
    return value if isinstance(value, int) else 0


def _mean(row: Row, column: Column) -> float:
    cell = row.cells.get(column.key)
    assert isinstance(cell, Figure)
    return cell.mean


_DIFFERENCE = next(column for column in c.PAIRED if column.key == "difference")
_GAP = next(column for column in c.OVERFITTING if column.key == "gap")
