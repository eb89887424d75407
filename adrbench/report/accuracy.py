"""The robust-accuracy table and the robust-overfitting table of one setting."""

from collections.abc import Sequence

from adrbench.report import columns as c
from adrbench.report.footnotes import figure_notes, marks, shared_run_notes, superseded_notes
from adrbench.report.grouping import (
    ZOO_PREFIX,
    Attack,
    Line,
    Setting,
    context,
    describe,
    shown_lines,
)
from adrbench.report.run_settings import Settings, settings_key, settings_marks
from adrbench.report.statistics import Figure, accuracy, difference
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.baselines import Leaderboard, Rank

RANKED_SUITE = "autoattack"


def accuracy_table(
    setting: Setting,
    lines: list[Line],
    leaderboard: Leaderboard,
    intervals: bool,
    settings: Settings,
) -> Table:
    """Return clean and robust accuracy of each line, and its rank on `leaderboard`.

    Lines of the best epoch and of foreign weights are shown, last epochs only without a best.
    """
    lines = shown_lines(lines)
    attacks = c.attack_columns(lines)
    data_marks, training_marks = _distinguish_data(lines), settings_marks(lines, settings)
    rows = []
    for line in lines:
        cells: dict[str, Cell] = c.identity(line) | {
            c.CHECKPOINT.key: line.selection,
            c.CHOSEN_ON.key: line.selected_on if line.selection == "best" else None,
            c.CLEAN.key: line.clean,
        }
        cells |= {column.key: line.robust.get(attack) for attack, column in attacks.items()}
        ranks = ranked(line, leaderboard)
        cells[c.RANK.key] = ranks[0] if ranks else None
        rows.append(
            Row(
                cells=cells,
                marks=marks(line)
                + data_marks.get(line.subject.data_sha256, ())
                + training_marks.get(settings_key(line), ()),
            )
        )
    is_ranked = any(row.cells[c.RANK.key] for row in rows)
    notes = figure_notes(rows, intervals) + superseded_notes(lines) + shared_run_notes(lines)
    if is_ranked:
        notes.append(
            f"rank: the place among RobustBench's {len(leaderboard.entries)} rows of this dataset "
            "and threat model, with the row itself counted in."
        )
    return Table(
        name="robust accuracy",
        title=f"Robust accuracy (%), {describe(setting)}",
        context=context(setting, lines),
        columns=(
            *(c.ARCH, c.METHOD, c.CHECKPOINT, c.SEEDS, c.N, c.CLEAN),
            *attacks.values(),
            *((c.RANK,) if is_ranked else ()),
        ),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def overfitting_table(
    setting: Setting, lines: list[Line], intervals: bool, settings: Settings
) -> Table | None:
    """Return best, last and their gap per suite, over the seeds that have both; None without.

    A suite that was run on one of the two only keeps its row, with dashes.
    """
    pairs = _pairs(lines)
    attacks = c.attack_columns(line for pair in pairs for line in pair)
    training_marks = settings_marks([best for best, _ in pairs], settings)
    rows = []
    for best, last in pairs:
        present = [a for a in attacks if a in best.records or a in last.records]
        if not any(set(best.correct(a)) & set(last.correct(a)) for a in present):
            continue
        settings_mark = training_marks.get(settings_key(best), ())
        own_marks = tuple(dict.fromkeys(marks(best) + marks(last))) + settings_mark
        rows += [
            Row(cells=_overfitting_cells(best, last, a, attacks[a].label), marks=own_marks)
            for a in present
        ]
    if not rows:
        return None
    shown = [line for pair in pairs for line in pair]
    return Table(
        name="robust overfitting",
        title=f"Robust overfitting (%, gap in points), {describe(setting)}",
        context=context(setting, lines),
        columns=c.OVERFITTING,
        rows=tuple(rows),
        notes=(
            'gap = best - last per training seed, below 0 where the last epoch was better; "chosen '
            'on" is the split that chose best.',
            *figure_notes(rows, intervals),
            *superseded_notes(line for line in shown if line.selection == "last"),
        ),
    )


def ranked(line: Line, leaderboard: Leaderboard) -> tuple[Rank, Rank | None] | None:
    """Return the ranks of `line` among all entries and among those of its architecture.

    None for anything but the standard AutoAttack on a whole published test set. A model of
    RobustBench's own zoo is compared with the others, not with itself.
    """
    figure = autoattack_figure(line)
    subject = line.subject
    if figure is None or not leaderboard.entries or not subject.is_on_full_published_test_set:
        return None
    others = leaderboard.without(subject.method.removeprefix(ZOO_PREFIX))
    same = others.of(subject.architecture)
    return others.rank(figure.mean), same.rank(figure.mean) if same.entries else None


def autoattack_figure(line: Line) -> Figure | None:
    """Return the standard AutoAttack's figure; None if it was run with several parameters."""
    found = [attack for attack in line.records if attack.suite == RANKED_SUITE]
    return line.robust[found[0]] if len(found) == 1 else None


def _overfitting_cells(best: Line, last: Line, attack: Attack, label: str) -> dict[str, Cell]:
    """Return one suite's cells; where some seeds have both, only those are averaged."""
    best_counts, last_counts, n = best.correct(attack), last.correct(attack), best.subject.n
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


def _pairs(lines: list[Line]) -> list[tuple[Line, Line]]:
    """Return each best line with the last epochs of the same models."""
    last = {(line.subject, line.selected_on): line for line in lines if line.selection == "last"}
    pairs = []
    for line in lines:
        if line.selection == "best":
            found = (last.get((line.subject, split)) for split in (line.selected_on, None))
            pairs += [(line, other) for other in found if other is not None][:1]
    return pairs


def _distinguish_data(lines: list[Line]) -> dict[str, tuple[str, ...]]:
    """Return a mark for each data hash, where rows of one size were measured on several."""
    hashes: dict[tuple[str, int, int], set[str]] = {}
    for line in lines:
        size = (line.subject.split, line.subject.n, line.subject.num_test)
        hashes.setdefault(size, set()).add(line.subject.data_sha256)
    return {
        sha256: (f"on data with sha256 {sha256[:12]}",)
        for group in hashes.values()
        if len(group) > 1
        for sha256 in group
    }
