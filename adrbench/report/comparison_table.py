"""Comparisons of each method with its control and with plain adversarial training."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adrbench.report import columns as c
from adrbench.report.attack_labels import label_attacks
from adrbench.report.comparison import Comparison, compare
from adrbench.report.controls import PLAIN, Control, choose_control, list_controls
from adrbench.report.footnotes import INTERVALS_NOTE, distinguish_weights, group_footnotes
from adrbench.report.grouping import SELECTIONS, Attack, SeedGroup, Task, context, describe
from adrbench.report.p_values import correct
from adrbench.report.references import References
from adrbench.report.run_settings import Settings, distinguish_training
from adrbench.report.statistics import PValue
from adrbench.report.tables import Cell, Row, Table
from adrbench.report.validation_split import (
    FEW_IMAGES,
    ValidationSplit,
    ValidationSplits,
    standard_error,
)

UNKNOWN_FOOTNOTE = "not known whether both were trained with the same settings"
ONE_SEED_FOOTNOTE = "one seed: interval over images only, for these weights; no p-value"
TWO_SEEDS_FOOTNOTE = "two seeds: up to 9 % of such intervals miss, not 5 %"
SPLIT_FOOTNOTE = "several seeds: training images differ too, since each seed holds out its own"
UNKNOWN_SPLIT_FOOTNOTE = (
    "several seeds: training images may differ too, if each seed holds out its own"
)
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
    references = References(groups, settings)
    found = [
        line
        for group in groups
        for attack in attacks
        for line in _compare(group, attack, references, against)
    ]
    if not found:
        return None
    fewest = _fewest_selection_images(task, groups, splits)
    is_last_first = fewest is not None and fewest < FEW_IMAGES
    lines = _in_order(found, attacks, is_last_first)
    p_values = _correct_families(lines)
    by_training = distinguish_training(groups, settings)
    by_weights = distinguish_weights(groups)
    has_seeds = any(line.compared.num_seeds > 1 for line in lines)
    rows = []
    for position, line in enumerate(lines):
        split = _look_up_split(line.group, task, splits)
        footnotes = line.footnotes
        if line.compared.num_seeds > 1:
            footnotes += _split_footnotes(split)
        if line.group.selection != "file" and line.group.identity.training not in settings:
            footnotes += (UNKNOWN_FOOTNOTE,)
        footnotes += by_training.get(line.group.identity, ())
        footnotes += by_weights.get(line.group.identity.weights, ())
        cells = _cells(line, attacks[line.attack], p_values.get(position))
        rows.append(Row(cells=cells, footnotes=tuple(dict.fromkeys(footnotes))))
    return Table(
        name="paired",
        title=f"Differences in robust accuracy (points), {describe(task)}",
        context=context(task, groups),
        columns=c.PAIRED,
        rows=tuple(rows),
        unnumbered=_shared_split_footnotes(lines, rows),
        notes=(
            *_notes(lines, has_seeds, intervals, fewest if is_last_first else None, against),
            *named.notes,
        ),
    )


def _compare(
    group: SeedGroup, attack: Attack, references: References, against: str | None
) -> Iterator[_Line]:
    """Yield the comparison with the nearest control and with PLAIN, or else with `against`."""
    method = group.identity.method
    controls: tuple[Control, ...] = ()
    if against is not None:
        controls = (choose_control(method, against),) if method != against else ()
    elif group.selection != "file":
        controls = list_controls(method)
    is_control = True
    for control in controls:
        if not is_control and control.method != PLAIN:
            continue
        reference = references.find(group, control, attack)
        compared = compare(group, reference, attack) if reference else None
        if reference and compared:
            is_fallback = is_control and against is None
            missing = _missing_footnotes(controls[0], control, reference) if is_fallback else ()
            yield _Line(
                group=group,
                reference=reference,
                attack=attack,
                compared=compared,
                is_control=is_control,
                footnotes=(
                    *group_footnotes(group),
                    *group_footnotes(reference),
                    *missing,
                    *references.describe_implied(group, control, reference),
                    *_few_seeds_footnotes(compared),
                ),
            )
            is_control = False


def _missing_footnotes(nearest: Control, control: Control, reference: SeedGroup) -> tuple[str, ...]:
    """Return which further components a control lacks if it is not the nearest."""
    if not control.further:
        return ()
    further = " and ".join(control.further)
    return (f"no {nearest.method} to compare with: {reference.method} also lacks {further}",)


def _few_seeds_footnotes(compared: Comparison) -> tuple[str, ...]:
    found = {1: ONE_SEED_FOOTNOTE, 2: TWO_SEEDS_FOOTNOTE}.get(compared.num_seeds)
    return (found,) if found else ()


def _split_footnotes(split: ValidationSplit | None) -> tuple[str, ...]:
    """Return a footnote where another seed changes, or may change, the training images too."""
    if split is None or split.follows_seed is False:
        return ()
    return (SPLIT_FOOTNOTE,) if split.follows_seed else (UNKNOWN_SPLIT_FOOTNOTE,)


def _look_up_split(
    group: SeedGroup, task: Task, splits: ValidationSplits
) -> ValidationSplit | None:
    """Return the validation split of the runs of a group, None if it is unknown.

    Models that were trained on other images may be attacked on the same test images.
    """
    images = group.identity.training_images or task.dataset
    return splits.get((images, group.identity.training))


def _shared_split_footnotes(lines: Iterable[_Line], rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the footnote on splits that all rows of several seeds have, if it is one."""
    several = [row for line, row in zip(lines, rows, strict=True) if line.compared.num_seeds > 1]
    return tuple(
        text
        for text in (SPLIT_FOOTNOTE, UNKNOWN_SPLIT_FOOTNOTE)
        if several and all(text in row.footnotes for row in several)
    )


def _fewest_selection_images(
    task: Task, groups: Iterable[SeedGroup], splits: ValidationSplits
) -> int | None:
    """Return the smallest number of images on which a best epoch was chosen; None if unknown."""
    sizes = []
    for group in groups:
        split = _look_up_split(group, task, splits)
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
