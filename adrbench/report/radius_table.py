"""Robust accuracy by radius: models attacked in the same way at several eps, one column each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adrbench.report import columns as c
from adrbench.report.attack_labels import (
    AttackLabels,
    at_relative_step,
    label_dated,
    newest_date,
)
from adrbench.report.distinctions import Distinctions
from adrbench.report.footnotes import (
    figure_notes,
    group_footnotes,
    shared_run_notes,
    superseded_notes,
)
from adrbench.report.grouping import Attack, SeedGroup, Task, row_order, shown_groups
from adrbench.report.run_settings import Settings
from adrbench.report.tables import Cell, Row, Table

RADIUS = "robust accuracy by radius"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Line:
    """One model under one suite: the group and its attack at each eps, as text.

    `attack` is what the attacks have in common, with the step as a multiple of eps where that is
    the same at all of them.
    """

    attack: Attack
    cells: Mapping[str, tuple[SeedGroup, Attack]]

    @property
    def groups(self) -> list[SeedGroup]:
        return [group for group, _ in self.cells.values()]


class RadiusTables:
    """The tables by radius of a report, one for each data set and norm that has several eps."""

    def __init__(
        self, grouped: Mapping[Task, list[SeedGroup]], intervals: bool, settings: Settings
    ) -> None:
        by_norm: dict[tuple[str, str], dict[str, list[SeedGroup]]] = {}
        for task, groups in grouped.items():
            by_norm.setdefault((task.dataset, task.norm), {})[task.eps] = groups
        self.tables: dict[tuple[str, str], Table] = {}
        self.shown: set[tuple[SeedGroup, Attack]] = set()
        for (dataset, norm), by_eps in by_norm.items():
            lines = _make_lines(by_eps)
            if lines:
                context = {"dataset": dataset, "norm": norm}
                self.tables[dataset, norm] = _make_table(context, lines, intervals, settings)
                self.shown.update(cell for line in lines for cell in line.cells.values())

    def take(self, task: Task) -> list[Table]:
        """Return the table of the data set and norm of `task`, the first time that it is asked."""
        table = self.tables.pop((task.dataset, task.norm), None)
        return [] if table is None else [table]

    def repeats(self, accuracies: Table, groups: list[SeedGroup]) -> bool:
        """Return whether every robust accuracy of `groups` in `accuracies` is shown by radius."""
        shown = shown_groups(groups)
        is_ranked = any(column.key == c.RANK.key for column in accuracies.columns)
        return not is_ranked and all(
            group.attacks and all((group, attack) in self.shown for attack in group.attacks)
            for group in shown
        )


def _make_lines(by_eps: Mapping[str, Sequence[SeedGroup]]) -> list[_Line]:
    """Return a line for each model and suite with two radii or more, in the order of tables."""
    models: dict[object, dict[str, SeedGroup]] = {}
    for eps, groups in by_eps.items():
        for group in groups:
            key = (group.identity, group.selection, group.selected_on)
            models.setdefault(key, {})[eps] = group
    lines = [line for own in models.values() for line in _join(own)]
    order = {attack: i for i, attack in enumerate(_label(lines).labels)}
    return sorted(lines, key=lambda line: (row_order(line.groups[0]), order[line.attack]))


def _join(model: Mapping[str, SeedGroup]) -> list[_Line]:
    """Return the lines of one model: attacks whose steps are in proportion to eps, or equal."""
    left = [(eps, group, attack) for eps, group in model.items() for attack in group.attacks]
    lines = []
    for is_relative in (True, False):
        found: dict[Attack, dict[str, tuple[SeedGroup, Attack]]] = {}
        for eps, group, attack in left:
            common = at_relative_step(attack, group.eps) if is_relative else attack
            found.setdefault(common, {}).setdefault(eps, (group, attack))
        joined = [
            _Line(attack=attack, cells=cells) for attack, cells in found.items() if len(cells) > 1
        ]
        lines += joined
        used = {cell for line in joined for cell in line.cells.values()}
        left = [one for one in left if one[1:] not in used]
    return lines


def _label(lines: Iterable[_Line]) -> AttackLabels:
    """Return the labels of the attacks of `lines`."""
    dates: dict[Attack, str] = {}
    for line in lines:
        newest = max(newest_date(group, attack) for group, attack in line.cells.values())
        dates[line.attack] = max(dates.get(line.attack, ""), newest)
    return label_dated(dates)


def _make_table(
    context: Mapping[str, str | float], lines: Sequence[_Line], intervals: bool, settings: Settings
) -> Table:
    groups = list(dict.fromkeys(group for line in lines for group in line.groups))
    eps_values = {eps: group.eps for line in lines for eps, (group, _) in line.cells.items()}
    columns = [c.radius_column(eps) for eps in sorted(eps_values.values())]
    named = _label(lines)
    apart = Distinctions(groups, settings)
    rows = [_make_row(line, named.labels[line.attack], apart) for line in lines]
    notes = figure_notes(rows, intervals) + superseded_notes(groups) + shared_run_notes(groups)
    return Table(
        name=RADIUS,
        title=f"Robust accuracy by radius (%), {context['dataset']}, {context['norm']}",
        context=context,
        columns=(*c.RADIUS, *columns),
        rows=tuple(rows),
        notes=tuple(dict.fromkeys((*notes, *named.notes))),
    )


def _make_row(line: _Line, label: str, apart: Distinctions) -> Row:
    groups = line.groups
    widest = max(groups, key=lambda group: len(group.seeds))
    cells: dict[str, Cell] = c.identity(widest) | {
        c.CHECKPOINT.key: widest.selection,
        c.CHOSEN_ON.key: widest.selected_on if widest.selection == "best" else None,
        c.SUITE.key: label,
        c.CLEAN.key: widest.clean,
    }
    for group, attack in line.cells.values():
        cells[c.radius_column(group.eps).key] = group.robust[attack]
    return Row(cells=cells, footnotes=(*_footnotes(line), *apart.of(widest)))


def _footnotes(line: _Line) -> tuple[str, ...]:
    """Return the footnotes on a line; those that concern only some radii name them."""
    found: dict[str, list[str]] = {}
    for eps, (group, attack) in line.cells.items():
        for text in group_footnotes(group, (attack,)):
            found.setdefault(text, []).append(eps)
    everywhere = list(line.cells)
    return tuple(
        text if where == everywhere else f"eps {', '.join(where)}: {text}"
        for text, where in found.items()
    )
