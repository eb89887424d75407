"""The groups that another is compared with: the same in everything but the method."""

from collections.abc import Iterable

from adrbench.report.controls import Control
from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.run_settings import Settings, shared_settings, spell

#: What two groups must share: the images, the network, the selected epoch and the settings.
_Conditions = tuple[object, ...]


class References:
    """The groups of one task, found by their method and by what another must share with them."""

    def __init__(self, groups: Iterable[SeedGroup], settings: Settings) -> None:
        self.settings = settings
        self.by_method: dict[str, list[SeedGroup]] = {}
        for group in groups:
            self.by_method.setdefault(group.identity.method, []).append(group)
        self.indices: dict[tuple[str, tuple[str, ...]], dict[_Conditions, list[SeedGroup]]] = {}

    def find(self, group: SeedGroup, control: Control, attack: Attack) -> SeedGroup | None:
        """Return the group of `control` that shares most seeds with `group` under `attack`.

        The two may differ in a setting that a removed component implies: AWP lacks the Nesterov
        momentum of methods without it, as published. None if they share no seed.
        """
        if control.method not in self.by_method:
            return None
        found = list(self._alike(group, control.method))
        config = self.settings.get(group.identity.training)
        implied = control.implied
        if config and implied and implied.items() <= config.values().items():
            others = self._alike(group, control.method, apart=tuple(implied))
            found += [other for other in others if other not in found]
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
        return tuple(
            f"{component.token} implies training {spell(name, mine)}; "
            f"{reference.method} was trained {spell(name, theirs)}"
            for component in control.removed
            for name in component.implies
            if mine.values().get(name) != theirs.values().get(name)
        )

    def _alike(self, group: SeedGroup, method: str, apart: tuple[str, ...] = ()) -> list[SeedGroup]:
        """Return the groups of `method` with the conditions of `group`, but for those `apart`."""
        key = (method, apart)
        if key not in self.indices:
            index = self.indices[key] = {}
            for reference in self.by_method[method]:
                index.setdefault(self._conditions(reference, method, apart), []).append(reference)
        return self.indices[key].get(self._conditions(group, method, apart), [])

    def _conditions(self, group: SeedGroup, method: str, apart: tuple[str, ...]) -> _Conditions:
        """Return what a group must share with one of `method`, with the settings if recorded."""
        identity = group.identity
        config = self.settings.get(identity.training)
        images = (identity.split, identity.n, identity.num_test, identity.data_sha256)
        trained = shared_settings(config, method, apart) if config else identity.label
        evaluated = (*images, identity.precision, group.selection, group.selected_on)
        return (identity.arch, *evaluated, identity.training_images, trained)


def _count_shared(group: SeedGroup, reference: SeedGroup, attack: Attack) -> int:
    """Return the number of seeds that both have under `attack`."""
    return len(group.records.get(attack, {}).keys() & reference.records.get(attack, {}).keys())
