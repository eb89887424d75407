"""Our rows beside published ones: RobustBench's entries, and the paper's own figures."""

from collections.abc import Mapping, Sequence

from adrbench.config.declare import format_eps
from adrbench.report import columns as c
from adrbench.report.accuracy import autoattack_figure, ranked
from adrbench.report.footnotes import figure_notes, marks
from adrbench.report.grouping import (
    ZOO_PREFIX,
    Line,
    Setting,
    context,
    describe,
    shown_lines,
)
from adrbench.report.statistics import Figure
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.baselines import (
    PAPER_NOTE,
    Baseline,
    Leaderboard,
    PaperRow,
    Rank,
    canonical_architecture,
    other_radii,
)

EXTERNAL_MARK = "robust accuracy from an evaluation stronger than AutoAttack"
UNRELIABLE_MARK = "RobustBench calls this model's AutoAttack figure unreliable"
OURS = "this report"


def robustbench_tables(
    setting: Setting, lines: list[Line], leaderboard: Leaderboard, intervals: bool
) -> list[Table]:
    """Return RobustBench's rows for each architecture in `lines`, ours among them by rank."""
    lines = [line for line in shown_lines(lines) if line.subject.published_test_set]
    ours = dict.fromkeys(line.subject.architecture for line in lines)
    published = (entry.architecture for own in ours for entry in leaderboard.of(own).entries)
    return [
        _robustbench_table(setting, arch, lines, leaderboard, intervals)
        for arch in dict.fromkeys(published)
    ]


def paper_tables(
    setting: Setting, lines: list[Line], paper_rows: Sequence[PaperRow], intervals: bool
) -> list[Table]:
    """Return the paper's rows for each architecture in `lines`, ours beside them."""
    lines = [line for line in shown_lines(lines) if line.subject.published_test_set]
    tables = []
    for arch in dict.fromkeys(row.architecture for row in paper_rows):
        canonical = canonical_architecture(arch)
        same = [line for line in lines if line.subject.architecture == canonical]
        if same:
            own_rows = [row for row in paper_rows if row.architecture == arch]
            tables.append(_paper_table(setting, arch, same, own_rows, intervals))
    return tables


def _robustbench_table(
    setting: Setting,
    arch: str,
    lines: list[Line],
    leaderboard: Leaderboard,
    intervals: bool,
) -> Table:
    entries = leaderboard.entries
    same = Leaderboard(tuple(entry for entry in entries if entry.architecture == arch))
    rows = [_entry_row(entry, leaderboard, same) for entry in same.entries]
    canonical = canonical_architecture(arch)
    for line in lines:
        is_same = line.subject.architecture == canonical
        ranks = ranked(line, leaderboard) if is_same else None
        if ranks is not None:
            rows.append(_our_row(line, ranks))
    rows.sort(key=lambda row: (-_percent(row.cells["robust"]), row.is_ours))
    ours = [row for row in rows if row.is_ours]
    return Table(
        name="robustbench",
        title=f"RobustBench (%), {describe(setting)}, {arch}",
        context=context(setting, lines) | {"arch": arch},
        columns=c.ROBUSTBENCH,
        rows=tuple(rows),
        notes=(
            *_ranking_notes(setting, lines[0].eps, entries, bool(ours)),
            *figure_notes(ours, intervals),
        ),
    )


def _ranking_notes(
    setting: Setting, eps: float, entries: Sequence[Baseline], has_ours: bool
) -> list[str]:
    notes = [f"rank: among all {len(entries)} rows of this dataset and threat model."]
    if has_ours:
        notes.append(
            f"Rows from {OURS} stand where they would rank; published ranks do not move for them."
        )
    else:
        notes.append(
            f"No row of {OURS} is ranked: that takes AutoAttack in float32 on the whole published "
            "test set."
        )
    others = other_radii(setting.dataset, setting.norm, eps)
    if others:
        shown = ", ".join(dict.fromkeys(map(format_eps, others)))
        notes.append(f"Not counted: {len(others)} of the leaderboard's rows, at eps {shown}.")
    return notes


def _entry_row(entry: Baseline, leaderboard: Leaderboard, same: Leaderboard) -> Row:
    cells: dict[str, Cell] = {
        "rank": leaderboard.rank(entry.robust_acc).place,
        "rank_in_arch": same.rank(entry.robust_acc).place,
        "method": entry.model_id,
        "clean": entry.clean_acc,
        "robust": entry.robust_acc,
        "extra_data": "yes" if entry.additional_data else "no",
        "source": entry.venue or None,
    }
    external = (EXTERNAL_MARK,) if entry.external_acc is not None else ()
    unreliable = (UNRELIABLE_MARK,) if entry.unreliable else ()
    return Row(cells=cells, marks=external + unreliable, is_ours=False)


def _our_row(line: Line, ranks: tuple[Rank, Rank | None]) -> Row:
    overall, in_arch = ranks
    label = line.subject.label.removeprefix(ZOO_PREFIX)
    cells: dict[str, Cell] = {
        "rank": overall.place,
        "rank_in_arch": in_arch.place if in_arch else None,
        "method": f"{label}, last" if line.selection == "last" else label,
        "clean": line.clean,
        "robust": autoattack_figure(line),
        "extra_data": None,
        "source": OURS,
    }
    return Row(cells=cells, marks=marks(line))


def _percent(cell: Cell) -> float:
    if isinstance(cell, Figure):
        return cell.mean
    return cell if isinstance(cell, float) else 0.0


def _paper_table(
    setting: Setting, arch: str, lines: list[Line], paper_rows: list[PaperRow], intervals: bool
) -> Table:
    ours: dict[str, Line] = {}
    for line in lines:
        if line.selection == "best" and line.subject.is_on_full_published_test_set:
            ours.setdefault(line.subject.label, line)
    rows = [_paper_row(row, ours) for row in paper_rows]
    has_ours = any(row.marks or row.cells["our_clean"] for row in rows)
    return Table(
        name="paper",
        title=f"ADR paper (%), {describe(setting)}, {arch}",
        context=context(setting, lines) | {"arch": arch},
        columns=(*c.PAPER, *(c.PAPER_OURS if has_ours else ()), c.SOURCE),
        rows=tuple(rows),
        notes=(PAPER_NOTE, *figure_notes(rows, intervals)),
    )


def _paper_row(published: PaperRow, lines: Mapping[str, Line]) -> Row:
    """Return a published row; ours is of the same method, best epoch, all images."""
    ours = lines.get(published.method) if published.extra_data == "none" else None
    cells: dict[str, Cell] = {
        "method": published.method,
        "extra_data": published.extra_data,
        "clean": published.clean_acc,
        "robust": published.autoattack_acc,
        "our_clean": ours.clean if ours else None,
        "our_robust": autoattack_figure(ours) if ours else None,
        "source": published.source,
    }
    return Row(cells=cells, marks=marks(ours) if ours else (), is_ours=False)
