"""The robust-accuracy and robust-overfitting tables of one task."""

from collections.abc import Sequence

from adrbench.report import columns as c
from adrbench.report.attack_labels import label_attacks
from adrbench.report.distinctions import Distinctions
from adrbench.report.footnotes import (
    figure_notes,
    group_footnotes,
    shared_run_notes,
    superseded_notes,
    unknown_method_notes,
)
from adrbench.report.grouping import (
    Attack,
    SeedGroup,
    Task,
    context,
    describe,
    shown_groups,
)
from adrbench.report.naming import ZOO_PREFIX
from adrbench.report.run_settings import Settings, distinguish_training
from adrbench.report.statistics import Figure, accuracy, difference
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.baselines import Leaderboard, Rank

RANKED_SUITE = "autoattack"


def accuracy_table(
    task: Task,
    groups: list[SeedGroup],
    leaderboard: Leaderboard,
    intervals: bool,
    settings: Settings,
) -> Table:
    """Return clean and robust accuracy of each group, and its rank on `leaderboard`.

    Groups of the best epoch and of third-party weights are shown, last epochs only without a best.
    """
    groups = shown_groups(groups)
    labels = label_attacks(groups)
    attacks = c.attack_columns(labels.labels)
    apart = Distinctions(groups, settings)
    rows = []
    for group in groups:
        cells: dict[str, Cell] = c.identity(group) | {
            c.CHECKPOINT.key: group.selection,
            c.CHOSEN_ON.key: group.selected_on if group.selection == "best" else None,
            c.CLEAN.key: group.clean,
        }
        cells |= {column.key: group.robust.get(attack) for attack, column in attacks.items()}
        ranks = ranked(group, leaderboard)
        cells[c.RANK.key] = ranks[0] if ranks else None
        rows.append(
            Row(
                cells=cells,
                footnotes=(*group_footnotes(group), *apart.of(group)),
            )
        )
    is_ranked = any(row.cells[c.RANK.key] for row in rows)
    notes = figure_notes(rows, intervals) + superseded_notes(groups) + shared_run_notes(groups)
    notes += [*unknown_method_notes(groups), *labels.notes]
    if is_ranked:
        notes.append(
            f"rank: among RobustBench's {len(leaderboard.entries)} entries and the row itself."
        )
    return Table(
        name="robust accuracy",
        title=f"Robust accuracy (%), {describe(task)}"
        if attacks
        else f"Clean accuracy (%), {task.dataset}",
        context=context(task, groups),
        columns=(
            *c.ACCURACY,
            *attacks.values(),
            *((c.RANK,) if is_ranked else ()),
        ),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def overfitting_table(
    task: Task, groups: list[SeedGroup], intervals: bool, settings: Settings
) -> Table | None:
    """Return best, last and their gap per suite, over the seeds that have both; None without.

    A suite that was run on only one of the two keeps its row, with dashes.
    """
    pairs = _pairs(groups)
    shown = [group for pair in pairs for group in pair]
    labels = label_attacks(shown)
    by_training = distinguish_training([best for best, _ in pairs], settings)
    rows = []
    for best, last in pairs:
        present = [a for a in labels.labels if a in best.records or a in last.records]
        if not any(set(best.correct(a)) & set(last.correct(a)) for a in present):
            continue
        own = dict.fromkeys(group_footnotes(best) + group_footnotes(last))
        footnotes = (*own, *by_training.get(best.identity, ()))
        rows += [
            Row(cells=_overfitting_cells(best, last, a, labels.labels[a]), footnotes=footnotes)
            for a in present
        ]
    if not rows:
        return None
    return Table(
        name="robust overfitting",
        title=f"Robust overfitting (%, gap in points), {describe(task)}",
        context=context(task, groups),
        columns=c.OVERFITTING,
        rows=tuple(rows),
        notes=(
            "gap: best - last per seed.",
            *figure_notes(rows, intervals),
            *superseded_notes(group for group in shown if group.selection == "last"),
            *labels.notes,
        ),
    )


def ranked(group: SeedGroup, leaderboard: Leaderboard) -> tuple[Rank, Rank | None] | None:
    """Return the ranks of `group` among all entries and among those of its architecture.

    None except for the standard AutoAttack on a complete published test set. A model of
    RobustBench's own zoo is compared with the other entries, not with itself.
    """
    figure = autoattack_figure(group)
    identity = group.identity
    if figure is None or not leaderboard.entries or not identity.is_on_full_published_test_set:
        return None
    others = leaderboard.without(identity.method.removeprefix(ZOO_PREFIX))
    same = others.of(identity.architecture)
    return others.rank(figure.mean), same.rank(figure.mean) if same.entries else None


def autoattack_figure(group: SeedGroup) -> Figure | None:
    """Return the accuracy under the standard AutoAttack; None if its parameters vary."""
    found = [attack for attack in group.records if attack.suite == RANKED_SUITE]
    return group.robust[found[0]] if len(found) == 1 else None


def _overfitting_cells(
    best: SeedGroup, last: SeedGroup, attack: Attack, label: str
) -> dict[str, Cell]:
    """Return the cells of one suite, averaged over the seeds that have both, if any has."""
    best_counts, last_counts, n = best.correct(attack), last.correct(attack), best.identity.n
    both = best_counts.keys() & last_counts.keys()
    if both:
        best_counts = {seed: best_counts[seed] for seed in best_counts if seed in both}
        last_counts = {seed: last_counts[seed] for seed in last_counts if seed in both}
    epochs = [record.epoch for record in best.records.get(attack, {}).values()]
    return c.identity(best) | {
        c.SEEDS.key: len(best_counts or last_counts),
        c.CHOSEN_ON.key: best.selected_on,
        "best_epoch": epoch_range(epochs),
        c.SUITE.key: label,
        "best": accuracy(best_counts, n),
        "last": accuracy(last_counts, n),
        "gap": difference(best_counts, last_counts, n),
    }


def epoch_range(epochs: Sequence[int | None]) -> str | None:
    """Return "104", or "104-131" where seeds differ; None without any."""
    known = sorted(epoch for epoch in epochs if epoch is not None)
    if not known:
        return None
    return str(known[0]) if known[0] == known[-1] else f"{known[0]}-{known[-1]}"


def _pairs(groups: list[SeedGroup]) -> list[tuple[SeedGroup, SeedGroup]]:
    """Return each best group with the last epochs of the same models."""
    last = {
        (group.identity, group.selected_on): group for group in groups if group.selection == "last"
    }
    pairs = []
    for group in groups:
        if group.selection == "best":
            found = (last.get((group.identity, split)) for split in (group.selected_on, None))
            pairs += [(group, other) for other in found if other is not None][:1]
    return pairs
