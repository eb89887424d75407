"""Reference groups for comparisons: equal in everything but the method."""

from collections.abc import Iterable, Mapping
from typing import Any

from adrbench.report.controls import Control
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.run_settings import Settings, shared_settings, spell

#: What two groups must share: the images, the network, the selected epoch and the settings.
_Conditions = tuple[object, ...]


class References:
    """The groups of one task, indexed by method and by the conditions that must match."""

    def __init__(self, groups: Iterable[SeedGroup], settings: Settings) -> None:
        self.settings = settings
        self.by_method: dict[str, list[SeedGroup]] = {}
        for group in groups:
            self.by_method.setdefault(group.identity.method, []).append(group)
        self.indices: dict[
            tuple[tuple[str, ...], tuple[str, ...]], dict[_Conditions, list[SeedGroup]]
        ] = {}

    def find(self, group: SeedGroup, control: Control, attack: Attack) -> SeedGroup | None:
        """Return the group of `control` that shares most seeds with `group` under `attack`.

        The two may differ in a setting that a removed component implies: AWP lacks the Nesterov
        momentum of methods without it, as published. None if they share no seed.
        """
        if control.method not in self.by_method:
            return None
        methods = self._compared_methods(group, control)
        found = list(self._alike(group, methods))
        implied, added = control.implied, control.implied_by_added
        if (implied or added) and self._has(group, implied):
            others = self._alike(group, methods, apart=(*implied, *added))
            found += [other for other in others if other not in found and self._has(other, added)]
        shared = {other: _count_shared(group, other, attack) for other in found}
        return max(
            (other for other in found if shared[other]), key=shared.__getitem__, default=None
        )

    def describe_implied(
        self, group: SeedGroup, control: Control, reference: SeedGroup
    ) -> tuple[str, ...]:
        """Return a footnote for each implied setting in which the two differ."""
        mine = self.settings.get(group.identity.training)
        theirs = self.settings.get(reference.identity.training)
        if mine is None or theirs is None:
            return ()
        sides = (
            (control.removed, mine, theirs, reference),
            (control.added, theirs, mine, group),
        )
        return tuple(
            f"{component.token} implies training {spell(name, own)}; "
            f"{other.method} was trained {spell(name, others)}"
            for components, own, others, other in sides
            for component in components
            for name in component.implies
            if own.values().get(name) != others.values().get(name)
        )

    def _compared_methods(self, group: SeedGroup, control: Control) -> tuple[str, ...]:
        """Return the methods whose common settings count: a control that only lacks some, alone."""
        return (control.method, *((group.identity.method,) if control.added else ()))

    def _has(self, group: SeedGroup, implied: Mapping[str, Any]) -> bool:
        """Return whether a group is known to have been trained with the settings `implied`."""
        config = self.settings.get(group.identity.training)
        return config is not None and implied.items() <= config.values().items()

    def _alike(
        self, group: SeedGroup, methods: tuple[str, ...], apart: tuple[str, ...] = ()
    ) -> list[SeedGroup]:
        """Return the groups of the first of `methods` with the conditions of `group`.

        They may differ in the settings `apart`.
        """
        key = (methods, apart)
        if key not in self.indices:
            index = self.indices[key] = {}
            for reference in self.by_method[methods[0]]:
                index.setdefault(self._conditions(reference, methods, apart), []).append(reference)
        return self.indices[key].get(self._conditions(group, methods, apart), [])

    def _conditions(
        self, group: SeedGroup, methods: tuple[str, ...], apart: tuple[str, ...]
    ) -> _Conditions:
        """Return the conditions that must match between two groups, with the settings if recorded.

        Third-party weights may be of any network.
        """
        identity = group.identity
        config = self.settings.get(identity.training)
        arch = "" if group.selection == "file" else identity.arch
        images = (identity.split, identity.n, identity.num_test, identity.data_sha256)
        trained = shared_settings(config, methods, apart) if config else identity.label
        arithmetics = (identity.precision, identity.searched)
        evaluated = (*images, *arithmetics, group.selection, group.selected_on)
        return (arch, *evaluated, identity.training_images, trained)


def _count_shared(group: SeedGroup, reference: SeedGroup, attack: Attack) -> int:
    """Return the number of seeds that both have under `attack`."""
    return len(group.records.get(attack, {}).keys() & reference.records.get(attack, {}).keys())
