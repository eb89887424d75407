"""Pairs of groups that tables compare, and the footnotes on what else differs between the two."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adrbench.report import columns as c
from adrbench.report.controls import Control, choose_control, list_controls
from adrbench.report.footnotes import distinguish_weights
from adrbench.report.grouping import Attack, SeedGroup, Task
from adrbench.report.references import References
from adrbench.report.run_settings import Settings, distinguish_training
from adrbench.report.tables import Row
from adrbench.report.validation_split import ValidationSplit, ValidationSplits

UNKNOWN_FOOTNOTE = "not known whether both were trained with the same settings"
ONE_SEED_FOOTNOTE = "one seed: interval over images only, for these weights"
TWO_SEEDS_FOOTNOTE = "two seeds: up to 9 % of such intervals miss, not 5 %"
SPLIT_FOOTNOTE = "several seeds: training images differ too, since each seed holds out its own"
UNKNOWN_SPLIT_FOOTNOTE = (
    "several seeds: training images may differ too, if each seed holds out its own"
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A group and a reference under `attack` that differ in nothing but what `control` lacks.

    `missing` are footnotes for a reference that is not the nearest control.
    """

    group: SeedGroup
    reference: SeedGroup
    attack: Attack
    control: Control
    missing: tuple[str, ...]


class Pairs:
    """The pairs of the groups of one task."""

    def __init__(
        self,
        task: Task,
        groups: list[SeedGroup],
        settings: Settings,
        splits: ValidationSplits,
        *,
        against: str | None = None,
    ) -> None:
        self.task, self.splits, self.against = task, splits, against
        self.references = References(groups, settings)
        self.by_training = distinguish_training(groups, settings)
        self.by_weights = distinguish_weights(groups)

    def find(self, group: SeedGroup, attack: Attack) -> Iterator[Pair]:
        """Yield `group` with each control that shares a seed, the nearest first.

        With `against`, this method is the only control.
        """
        controls = self._list_controls(group)
        for control in controls:
            reference = self.references.find(group, control, attack)
            if reference:
                yield Pair(
                    group=group,
                    reference=reference,
                    attack=attack,
                    control=control,
                    missing=_describe_missing(controls[0], control) if self.against is None else (),
                )

    def _list_controls(self, group: SeedGroup) -> tuple[Control, ...]:
        method = group.identity.method
        if self.against is not None:
            return (choose_control(method, self.against),) if method != self.against else ()
        return list_controls(method) if group.selection != "file" else ()

    def find_split(self, group: SeedGroup) -> ValidationSplit | None:
        """Return the validation split of the runs of a group, None if it is unknown.

        Models that were trained on other images may be attacked on the same test images.
        """
        images = group.identity.training_images or self.task.dataset
        return self.splits.get((images, group.identity.training))

    def footnotes(self, pair: Pair, num_seeds: int, one_seed: str) -> tuple[str, ...]:
        """Return what else differs in a pair compared over `num_seeds`; of one, also `one_seed`."""
        training = pair.group.identity.training
        is_unknown = pair.group.selection != "file" and training not in self.references.settings
        few = {1: one_seed, 2: TWO_SEEDS_FOOTNOTE}.get(num_seeds)
        return (
            *self.references.describe_implied(pair.group, pair.control, pair.reference),
            *([few] if few else []),
            *(_describe_split(self.find_split(pair.group)) if num_seeds > 1 else ()),
            *([UNKNOWN_FOOTNOTE] if is_unknown else []),
            *self.by_training.get(pair.group.identity, ()),
            *self.by_weights.get(pair.group.identity.weights, ()),
        )


def shared_split_footnotes(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the footnotes on splits that all rows of several seeds have, if it is one."""
    several = [row for row in rows if _num_seeds(row) > 1]
    return tuple(
        text
        for text in (SPLIT_FOOTNOTE, UNKNOWN_SPLIT_FOOTNOTE)
        if several and all(text in row.footnotes for row in several)
    )


def _num_seeds(row: Row) -> int:
    found = row.cells[c.SEEDS.key]
    return found if isinstance(found, int) else 0


def _describe_missing(nearest: Control, control: Control) -> tuple[str, ...]:
    """Return which further components a control lacks if it is not the nearest."""
    if not control.further:
        return ()
    further = " and ".join(control.further)
    return (f"no {nearest.method} to compare with: {control.method} also lacks {further}",)


def _describe_split(split: ValidationSplit | None) -> tuple[str, ...]:
    """Return a footnote where another seed changes, or may change, the training images too."""
    if split is None or split.follows_seed is False:
        return ()
    return (SPLIT_FOOTNOTE,) if split.follows_seed else (UNKNOWN_SPLIT_FOOTNOTE,)
