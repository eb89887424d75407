"""Tables of published figures with ours: RobustBench's entries, and those of ADR's paper."""

from collections.abc import Mapping, Sequence

from adrbench.config.declare import format_eps
from adrbench.report import columns as c
from adrbench.report.accuracy_tables import autoattack_figure, ranked
from adrbench.report.footnotes import figure_notes, group_footnotes
from adrbench.report.grouping import (
    SeedGroup,
    Task,
    context,
    describe,
    shown_groups,
)
from adrbench.report.naming import ZOO_PREFIX
from adrbench.report.statistics import Figure
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.baselines import (
    Baseline,
    Leaderboard,
    PaperRow,
    Rank,
    canonical_architecture,
    other_radii,
)

EXTERNAL_FOOTNOTE = "robust accuracy of an evaluation stronger than AutoAttack"
UNRELIABLE_FOOTNOTE = "AutoAttack figure unreliable according to RobustBench"
OURS = "this report"
PAPER_NOTE = "paper AA: AutoAttack with fewer steps, not comparable with the official one."


def robustbench_tables(
    task: Task, groups: list[SeedGroup], leaderboard: Leaderboard, intervals: bool
) -> list[Table]:
    """Return RobustBench's rows for each architecture in `groups`, ours among them by rank."""
    groups = [group for group in shown_groups(groups) if group.identity.published_test_set]
    ours = dict.fromkeys(group.identity.architecture for group in groups)
    published = (entry.architecture for own in ours for entry in leaderboard.of(own).entries)
    return [
        _robustbench_table(task, arch, groups, leaderboard, intervals)
        for arch in dict.fromkeys(published)
    ]


def paper_tables(
    task: Task, groups: list[SeedGroup], paper_rows: Sequence[PaperRow], intervals: bool
) -> list[Table]:
    """Return the paper's rows for each architecture in `groups`, with our figures."""
    groups = [group for group in shown_groups(groups) if group.identity.published_test_set]
    tables = []
    for arch in dict.fromkeys(row.architecture for row in paper_rows):
        canonical = canonical_architecture(arch)
        same = [group for group in groups if group.identity.architecture == canonical]
        if same:
            own_rows = [row for row in paper_rows if row.architecture == arch]
            tables.append(_paper_table(task, arch, same, own_rows, intervals))
    return tables


def _robustbench_table(
    task: Task,
    arch: str,
    groups: list[SeedGroup],
    leaderboard: Leaderboard,
    intervals: bool,
) -> Table:
    entries = leaderboard.entries
    same = Leaderboard(tuple(entry for entry in entries if entry.architecture == arch))
    rows = [_entry_row(entry, leaderboard, same) for entry in same.entries]
    canonical = canonical_architecture(arch)
    for group in groups:
        is_same = group.identity.architecture == canonical
        ranks = ranked(group, leaderboard) if is_same else None
        if ranks is not None:
            rows.append(_our_row(group, ranks))
    rows.sort(key=lambda row: (-_percent(row.cells["robust"]), row.is_ours))
    ours = [row for row in rows if row.is_ours]
    return Table(
        name="robustbench",
        title=f"RobustBench (%), {describe(task)}, {arch}",
        context=context(task, groups) | {"arch": arch},
        columns=c.ROBUSTBENCH,
        rows=tuple(rows),
        notes=(
            *_ranking_notes(task, groups[0].eps, entries, bool(ours)),
            *figure_notes(ours, intervals),
        ),
    )


def _ranking_notes(
    task: Task, eps: float, entries: Sequence[Baseline], has_ours: bool
) -> list[str]:
    own = f"rows of {OURS} are not counted" if has_ours else f"no row of {OURS} is ranked"
    notes = [f"rank: among {len(entries)} entries; {own}."]
    others = other_radii(task.dataset, task.norm, eps)
    if others:
        shown = ", ".join(dict.fromkeys(map(format_eps, others)))
        notes.append(f"not counted: {len(others)} entries at eps {shown}.")
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
    external = (EXTERNAL_FOOTNOTE,) if entry.external_acc is not None else ()
    unreliable = (UNRELIABLE_FOOTNOTE,) if entry.unreliable else ()
    return Row(cells=cells, footnotes=external + unreliable, is_ours=False)


def _our_row(group: SeedGroup, ranks: tuple[Rank, Rank | None]) -> Row:
    overall, in_arch = ranks
    label = group.method.removeprefix(ZOO_PREFIX)
    cells: dict[str, Cell] = {
        "rank": overall.place,
        "rank_in_arch": in_arch.place if in_arch else None,
        "method": f"{label}, last" if group.selection == "last" else label,
        "clean": group.clean,
        "robust": autoattack_figure(group),
        "extra_data": None,
        "source": OURS,
    }
    return Row(cells=cells, footnotes=group_footnotes(group))


def _percent(cell: Cell) -> float:
    if isinstance(cell, Figure):
        return cell.mean
    return cell if isinstance(cell, float) else 0.0


def _paper_table(
    task: Task, arch: str, groups: list[SeedGroup], paper_rows: list[PaperRow], intervals: bool
) -> Table:
    ours: dict[str, SeedGroup] = {}
    for group in groups:
        if group.selection == "best" and group.identity.is_on_full_published_test_set:
            ours.setdefault(group.method, group)
    rows = [_paper_row(row, ours) for row in paper_rows]
    has_ours = any(row.footnotes or row.cells["our_clean"] for row in rows)
    return Table(
        name="paper",
        title=f"ADR paper (%), {describe(task)}, {arch}",
        context=context(task, groups) | {"arch": arch},
        columns=(*c.PAPER, *(c.PAPER_OURS if has_ours else ()), c.SOURCE),
        rows=tuple(rows),
        notes=(PAPER_NOTE, *figure_notes(rows, intervals)),
    )


def _paper_row(published: PaperRow, groups: Mapping[str, SeedGroup]) -> Row:
    """Return a published row; ours is of the same method, best epoch, all images."""
    ours = groups.get(published.method) if published.extra_data == "none" else None
    cells: dict[str, Cell] = {
        "method": published.method,
        "extra_data": published.extra_data,
        "clean": published.clean_acc,
        "robust": published.autoattack_acc,
        "our_clean": ours.clean if ours else None,
        "our_robust": autoattack_figure(ours) if ours else None,
        "source": published.source,
    }
    return Row(cells=cells, footnotes=group_footnotes(ours) if ours else (), is_ours=False)
