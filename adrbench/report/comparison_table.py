"""Each method compared with plain adversarial training, image by image."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from adrbench.errors import RecordError
from adrbench.report import columns as c
from adrbench.report.footnotes import figure_notes, group_footnotes
from adrbench.report.grouping import Attack, SeedGroup, Task, context, describe
from adrbench.report.p_values import exact_test
from adrbench.report.run_settings import Settings, around_method, distinguish_training
from adrbench.report.statistics import Figure, PValue, accuracy, difference
from adrbench.report.tables import Cell, Row, Table
from adrbench.results.records import AttackRecord, unpack_outcomes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REFERENCE = "at"
UNKNOWN_FOOTNOTE = f"not known whether {REFERENCE} was trained with the same settings"
NOTE = (
    f"difference: robust - {REFERENCE} per seed; won, lost: images; p: exact paired test over "
    f"images."
)
#: With at least as many comparisons a note says how many are significant by chance.
MANY = 20
CHANCE_NOTE = (
    "p is not corrected: without any difference, about {} of these {} would be below 0.05."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method against the reference under one attack, on the same images and training seeds.

    `margins` (n,) is the number of seeds of the method that are robust on each image, minus that
    of the reference.
    """

    reference: Figure | None
    method: Figure | None
    difference: Figure | None
    margins: "npt.NDArray[np.int_]"


def paired_table(
    task: Task, groups: list[SeedGroup], intervals: bool, settings: Settings
) -> Table | None:
    """Return the groups that have a reference which differs in nothing but the method.

    None without any such pair.
    """
    attacks = c.attack_columns(groups)
    by_training = distinguish_training(groups, settings)
    references = _References(groups, settings)
    rows = []
    for group in groups:
        among = references.find(group)
        unknown = () if group.identity.training in settings else (UNKNOWN_FOOTNOTE,)
        for attack, column in attacks.items():
            reference = max(among, key=partial(_count_shared, group, attack), default=None)
            compared = reference and compare(group, reference, attack)
            if reference and compared:
                footnotes = (*group_footnotes(group), *group_footnotes(reference), *unknown)
                footnotes += by_training.get(group.identity, ())
                cells = _cells(group, column.label, compared)
                rows.append(Row(cells=cells, footnotes=tuple(dict.fromkeys(footnotes))))
    if not rows:
        return None
    many = len(rows) >= MANY
    chance = (CHANCE_NOTE.format(round(len(rows) / 20), len(rows)),) if many else ()
    return Table(
        name="paired",
        title=f"Compared with {REFERENCE}, per image (%, difference in points), {describe(task)}",
        context=context(task, groups),
        columns=c.PAIRED,
        rows=tuple(rows),
        notes=(NOTE, *chance, *figure_notes(rows, intervals)),
    )


def compare(group: SeedGroup, reference: SeedGroup, attack: Attack) -> Comparison | None:
    """Return `group` against `reference` under `attack`; None without a seed that both have.

    A seed whose outcomes cannot be read is left out.
    """
    import numpy as np

    mine, theirs = group.records.get(attack, {}), reference.records.get(attack, {})
    margins = {}
    for seed in group.seeds:
        if seed in mine and seed in theirs:
            try:
                margins[seed] = _robust(mine[seed]) - _robust(theirs[seed])
            except RecordError:
                continue
    if not margins or not group.identity.n:
        return None
    ours = {seed: mine[seed].robust_correct for seed in margins}
    others = {seed: theirs[seed].robust_correct for seed in margins}
    n = group.identity.n
    return Comparison(
        reference=accuracy(others, n),
        method=accuracy(ours, n),
        difference=difference(ours, others, n),
        margins=np.sum(list(margins.values()), axis=0),
    )


#: What two groups must share: the images, the network, the selected epoch and the settings.
_Conditions = tuple[object, ...]


class _References:
    """The groups of the reference, found by what another group must share with them."""

    def __init__(self, groups: Iterable[SeedGroup], settings: Settings) -> None:
        self.groups = [group for group in groups if group.identity.method == REFERENCE]
        self.settings = settings
        self.indices: dict[tuple[str, ...], dict[_Conditions, list[SeedGroup]]] = {}

    def find(self, group: SeedGroup) -> list[SeedGroup]:
        """Return the references of `group`.

        They may differ in a setting that a component of its method implies: AWP lacks the
        Nesterov momentum that the reference has, as published.
        """
        if group.identity.method == REFERENCE or group.selection == "file":
            return []
        found = list(self._alike(group))
        config = self.settings.get(group.identity.training)
        implied = config.parsed_method().implied if config else {}
        if config and implied and implied.items() <= config.values().items():
            others = self._alike(group, apart=tuple(implied))
            found += [other for other in others if other not in found]
        return found

    def _alike(self, group: SeedGroup, apart: tuple[str, ...] = ()) -> list[SeedGroup]:
        """Return the references with the conditions of `group`, but for the settings `apart`."""
        if apart not in self.indices:
            index = self.indices[apart] = {}
            for reference in self.groups:
                conditions = _conditions(reference, self.settings, apart)
                index.setdefault(conditions, []).append(reference)
        return self.indices[apart].get(_conditions(group, self.settings, apart), [])


def _conditions(group: SeedGroup, settings: Settings, apart: tuple[str, ...]) -> _Conditions:
    """Return what a group and its reference must share, with the settings where recorded."""
    identity = group.identity
    images = (identity.split, identity.n, identity.num_test, identity.data_sha256)
    config = settings.get(identity.training)
    trained = around_method(config, apart) if config else identity.label
    evaluated = (*images, identity.precision, group.selection, group.selected_on)
    return (identity.arch, *evaluated, identity.training_images, trained)


def _count_shared(group: SeedGroup, attack: Attack, reference: SeedGroup) -> int:
    """Return the number of seeds that both have under `attack`."""
    return len(group.records.get(attack, {}).keys() & reference.records.get(attack, {}).keys())


def _robust(record: AttackRecord) -> "npt.NDArray[np.int_]":
    return unpack_outcomes(record.verdicts.robust, record.n).astype(int)


def _cells(group: SeedGroup, suite: str, compared: Comparison) -> dict[str, Cell]:
    return c.identity(group) | {
        c.CHECKPOINT.key: group.selection,
        c.CHOSEN_ON.key: group.selected_on,
        c.SEEDS.key: len(compared.difference.seeds) if compared.difference else None,
        c.SUITE.key: suite,
        "reference": compared.reference,
        "robust": compared.method,
        "difference": compared.difference,
        "won": int((compared.margins > 0).sum()),
        "lost": int((compared.margins < 0).sum()),
        "p": PValue(p=exact_test(compared.margins.tolist())),
    }
