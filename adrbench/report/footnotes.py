"""What a reader must know before using a line's figures, and the notes under a table."""

from collections.abc import Iterable

from adrbench.report.grouping import FINAL_PRECISION, Line
from adrbench.report.statistics import Figure
from adrbench.report.tables import Cell, Row

#: Longer lists of seeds or runs are only counted.
MOST_LISTED = 5
SEEDS_NOTE = "± is the sample standard deviation over training seeds."
SHARED_NOTE = "Rows that differ in wa alone may be the student and the average of the same runs."
INTERVALS_NOTE = (
    "[low, high] is the 95 % Wilson interval over the n test images; with several seeds it is "
    "that of their mean, and the spread between seeds is the ± alone."
)


def marks(line: Line) -> tuple[str, ...]:
    """Return everything that sets `line` apart from a plain, complete, published measurement."""
    return tuple(dict.fromkeys([*_data_marks(line), *_seed_marks(line), *_warning_marks(line)]))


def superseded_notes(lines: Iterable[Line]) -> list[str]:
    """Return a note for each line in which a seed was evaluated more than once."""
    notes = []
    for line in lines:
        if line.superseded:
            count = len(line.superseded)
            runs = sorted({record.run for record in line.superseded})
            origin = ", ".join(runs) if len(runs) <= MOST_LISTED else f"{len(runs)} runs"
            notes.append(
                f"{line.subject.label}, {line.selection}: {count} older "
                f"{'record' if count == 1 else 'records'} of the same seed and suite left out "
                f"(from {origin})."
            )
    return notes


def shared_run_notes(lines: Iterable[Line]) -> list[str]:
    """Return a note where the student and the average of one run stand in rows of their own."""
    weights: dict[str, set[str]] = {}
    for line in lines:
        for by_seed in line.records.values():
            for record in by_seed.values():
                weights.setdefault(record.run, set()).add(record.weights)
    return [SHARED_NOTE] if any(len(found) > 1 for found in weights.values()) else []


def figure_notes(rows: Iterable[Row], intervals: bool) -> list[str]:
    """Return how to read the figures of `rows`: only what occurs in them."""
    cells: list[Cell] = [cell for row in rows for cell in row.cells.values()]
    figures = [cell for cell in cells if isinstance(cell, Figure)]
    notes = [SEEDS_NOTE] if any(figure.std is not None for figure in figures) else []
    if intervals and any(figure.interval for figure in figures):
        notes.append(INTERVALS_NOTE)
    return notes


def _data_marks(line: Line) -> list[str]:
    subject = line.subject
    found = []
    if not subject.published_test_set:
        found.append("own test set: not comparable with published figures")
    if subject.split != "test":
        found.append(f"measured on the {subject.split} split")
    if subject.n != subject.num_test:
        found.append(f"first {subject.n} of {subject.num_test} test images")
    if line.selection == "best" and line.selected_on == "test":
        found.append("best epoch chosen on the test split: optimistic")
    if subject.precision != FINAL_PRECISION:
        found.append(f"evaluated in {subject.precision}, not {FINAL_PRECISION}")
    return found


def _seed_marks(line: Line) -> list[str]:
    seeds = line.seeds
    found = [
        f"{attack.suite} on {len(by_seed)} of {len(seeds)} seeds"
        for attack, by_seed in line.records.items()
        if len(by_seed) < len(seeds)
    ]
    differing = [
        seed
        for seed in seeds
        if len({r[seed].clean_correct for r in line.records.values() if seed in r}) > 1
    ]
    if differing:
        found.append(f"clean count differs between suites ({_seeds(differing)}): newest shown")
    return found


def _warning_marks(line: Line) -> list[str]:
    seeds_of: dict[tuple[str, str], list[int | None]] = {}
    for attack, by_seed in line.records.items():
        for seed in line.seeds:
            warnings = by_seed[seed].warnings if seed in by_seed else ()
            for warning in dict.fromkeys(warnings) if warnings else ():
                seeds_of.setdefault((attack.suite, warning), []).append(seed)
    return [
        f"warning from {suite}{'' if seeds == [None] else f' ({_seeds(seeds)})'}: {warning}"
        for (suite, warning), seeds in seeds_of.items()
    ]


def _seeds(seeds: list[int | None]) -> str:
    if len(seeds) > MOST_LISTED:
        return f"{len(seeds)} seeds"
    shown = ", ".join("unknown" if seed is None else str(seed) for seed in seeds)
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {shown}"
