"""Comparisons of each method with its control and with plain adversarial training."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adrbench.report import columns as c
from adrbench.report.attack_labels import label_attacks
from adrbench.report.comparison import Comparison, compare
from adrbench.report.controls import PLAIN
from adrbench.report.footnotes import INTERVALS_NOTE, group_footnotes
from adrbench.report.grouping import SELECTIONS, Attack, SeedGroup, Task, context, describe
from adrbench.report.p_values import correct
from adrbench.report.pairs import ONE_SEED_FOOTNOTE, Pairs, shared_split_footnotes
from adrbench.report.run_settings import Settings
from adrbench.report.statistics import PValue
from adrbench.report.tables import Cell, Row, Table
from adrbench.report.validation_split import FEW_IMAGES, ValidationSplits, standard_error

WITHOUT_P_FOOTNOTE = f"{ONE_SEED_FOOTNOTE}; no p-value"
SEEDS_NOTE = "difference: robust - reference [95 % interval, seeds and images both random]."
IMAGES_NOTE = "difference: robust - reference [95 % interval, only images random]."
P_NOTE = "p (m): Holm-corrected over m comparisons with a control, per suite and epoch."
P_AGAINST_NOTE = "p (m): Holm-corrected over m comparisons with {}, per suite and epoch."
DETECTABLE_NOTE = "detectable: true difference found with 80 % power, uncorrected."
LAST_FIRST_NOTE = (
    "last epoch first: the best was chosen on {} images (standard error {:.1f} points)."
)
#: The comparisons whose p-values are corrected together: the attack and how epochs were chosen.
Family = tuple[Attack, str, str | None]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A comparison of `group`; `is_control` unless it is only with plain adversarial training."""

    group: SeedGroup
    reference: SeedGroup
    attack: Attack
    compared: Comparison
    is_control: bool
    footnotes: tuple[str, ...]

    @property
    def family(self) -> Family:
        chosen_on = self.group.selected_on if self.group.selection == "best" else None
        return (self.attack, self.group.selection, chosen_on)

    @property
    def is_in_family(self) -> bool:
        """Whether the comparison is in its family, independently of any outcome."""
        return self.is_control and self.compared.num_seeds > 1


def paired_table(
    task: Task,
    groups: list[SeedGroup],
    intervals: bool,
    settings: Settings,
    splits: ValidationSplits,
    *,
    against: str | None = None,
) -> Table | None:
    """Compare each group with its control, and with PLAIN if that is another method.

    With `against`, each group is compared with this method alone, and all of these comparisons
    are a family. Two groups are compared if they differ in nothing but components of the method
    and what these imply. None without any such pair.
    """
    named = label_attacks(groups)
    attacks = named.labels
    pairs = Pairs(task, groups, settings, splits, against=against)
    found = [
        line for group in groups for attack in attacks for line in _compare(group, attack, pairs)
    ]
    if not found:
        return None
    fewest = _fewest_selection_images(groups, pairs)
    is_last_first = fewest is not None and fewest < FEW_IMAGES
    lines = _in_order(found, attacks, is_last_first)
    p_values = _correct_families(lines)
    has_seeds = any(line.compared.num_seeds > 1 for line in lines)
    rows = [
        Row(cells=_cells(line, attacks[line.attack], p_values.get(i)), footnotes=line.footnotes)
        for i, line in enumerate(lines)
    ]
    return Table(
        name="paired",
        title=f"Differences in robust accuracy (points), {describe(task)}",
        context=context(task, groups),
        columns=c.PAIRED,
        rows=tuple(rows),
        unnumbered=shared_split_footnotes(rows),
        notes=(
            *_notes(lines, has_seeds, intervals, fewest if is_last_first else None, against),
            *named.notes,
        ),
    )


def _compare(group: SeedGroup, attack: Attack, pairs: Pairs) -> Iterator[_Line]:
    """Yield the comparison with the nearest control and with PLAIN, or else with `against`."""
    is_control = True
    for pair in pairs.find(group, attack):
        if not is_control and pair.control.method != PLAIN:
            continue
        compared = compare(group, pair.reference, attack)
        if compared:
            footnotes = (
                *group_footnotes(group),
                *group_footnotes(pair.reference),
                *(pair.missing if is_control else ()),
                *pairs.footnotes(pair, compared.num_seeds, WITHOUT_P_FOOTNOTE),
            )
            yield _Line(
                group=group,
                reference=pair.reference,
                attack=attack,
                compared=compared,
                is_control=is_control,
                footnotes=tuple(dict.fromkeys(footnotes)),
            )
            is_control = False


def _fewest_selection_images(groups: Iterable[SeedGroup], pairs: Pairs) -> int | None:
    """Return the smallest number of images on which a best epoch was chosen; None if unknown."""
    sizes = []
    for group in groups:
        split = pairs.find_split(group)
        if group.selection == "best" and group.selected_on == "test":
            sizes.append(group.identity.num_test)
        elif group.selection == "best" and split:
            sizes.append(split.num_images)
    return min((size for size in sizes if size), default=None)


def _in_order(
    lines: Iterable[_Line], attacks: Iterable[Attack], is_last_first: bool
) -> list[_Line]:
    """Sort the lines by family: by epoch rule, then by attack, keeping their order within."""
    selections = ("last", "best") if is_last_first else SELECTIONS
    order = {attack: position for position, attack in enumerate(attacks)}
    return sorted(
        lines,
        key=lambda line: (
            selections.index(line.group.selection),
            line.family[2] != "val",
            order[line.attack],
        ),
    )


def _correct_families(lines: Iterable[_Line]) -> dict[int, PValue]:
    """Return the corrected p-value of each line that has one, by its position.

    A comparison of the family without one, because its outcomes do not vary, counts as p = 1: the
    others are then corrected as much as they would be for any of its values.
    """
    families: dict[Family, dict[int, float | None]] = {}
    for position, line in enumerate(lines):
        if line.is_in_family:
            families.setdefault(line.family, {})[position] = line.compared.p
    return {
        position: PValue(p=p, uncorrected=uncorrected, comparisons=len(own))
        for own in families.values()
        for (position, uncorrected), p in zip(
            own.items(), correct([1.0 if p is None else p for p in own.values()]), strict=True
        )
        if uncorrected is not None
    }


def _notes(
    lines: Iterable[_Line],
    has_seeds: bool,
    intervals: bool,
    fewest: int | None,
    against: str | None,
) -> tuple[str, ...]:
    """Return the notes on what occurs in `lines`; best epochs were chosen on `fewest` images."""
    p_note = P_NOTE if against is None else P_AGAINST_NOTE.format(against)
    notes = [SEEDS_NOTE, p_note, DETECTABLE_NOTE] if has_seeds else [IMAGES_NOTE]
    if intervals:
        notes.append(INTERVALS_NOTE)
    if fewest is not None and len({line.group.selection for line in lines}) > 1:
        notes.append(LAST_FIRST_NOTE.format(fewest, standard_error(fewest)))
    return tuple(notes)


def _cells(line: _Line, suite: str, p: PValue | None) -> dict[str, Cell]:
    group, compared = line.group, line.compared
    return c.identity(group) | {
        c.AGAINST.key: line.reference.method,
        c.CHECKPOINT.key: group.selection,
        c.CHOSEN_ON.key: group.selected_on,
        c.SEEDS.key: compared.num_seeds,
        c.SUITE.key: suite,
        "difference": compared.difference,
        "p": p,
        "detectable": compared.detectable,
        "robust": compared.robust,
        "reference": compared.reference,
    }
