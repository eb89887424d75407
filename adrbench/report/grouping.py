"""Seed groups: which records are averaged over training seeds.

Records are averaged when their runs have the same settings, training images, network and method,
and were evaluated in the same way; only the training seed differs. Names of runs are ignored,
except for records that do not store their training images.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from adrbench.config.declare import format_eps
from adrbench.report.naming import (
    common_label,
    method_name,
    method_order,
    network_name,
    short_label,
    with_label,
)
from adrbench.report.statistics import Figure, accuracy
from adrbench.results.baselines import canonical_architecture
from adrbench.results.records import AttackRecord
from adrbench.runtime.arithmetic import FLOAT32, RANKED

FINAL_PRECISION = FLOAT32
SELECTIONS = ("best", "last", "file")
#: The suite without an attack: its records have a clean accuracy and no robust one.
CLEAN_SUITE = "clean"

#: Parameters as one text, whatever their order.
_canonical = json.JSONEncoder(sort_keys=True).encode


class Task(NamedTuple):
    """A data set and threat model; `eps` is text, so that 8/255 and its rounded float are equal."""

    dataset: str
    norm: str
    eps: str


class ModelIdentity(NamedTuple):
    """The common identity of the records of one model, at any selected epoch.

    `training` identifies the training settings without the seed, `training_images` the images;
    each is "" where unknown. `label` counts only without training images and is "" with them.
    `weights` identifies third-party weights and, after a plus, the user's code of their network;
    `training_run` one of several trainings of a seed that ended in different weights. Each is ""
    for other records.
    """

    arch: str
    method: str
    label: str
    split: str
    n: int
    num_test: int
    published_test_set: bool
    data_sha256: str
    precision: str
    searched: str
    training: str
    training_images: str
    weights: str
    training_run: str = ""

    @property
    def architecture(self) -> str:
        """The network in canonical spelling, whatever its activation."""
        return canonical_architecture(self.arch.partition(" (")[0])

    @property
    def is_on_full_published_test_set(self) -> bool:
        """Whether the figures are comparable with published ones."""
        whole = self.split == "test" and self.n == self.num_test
        return (
            self.published_test_set
            and whole
            and {self.precision, self.searched} == {FINAL_PRECISION}
        )


class Attack(NamedTuple):
    """A suite and its parameters as canonical JSON."""

    suite: str
    parameters: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedGroup:
    """Records that differ in suite and training seed only, and those that they replaced."""

    identity: ModelIdentity
    selection: str
    selected_on: str | None
    eps: float
    label: str
    records: Mapping[Attack, Mapping[int | None, AttackRecord]]
    superseded: tuple[AttackRecord, ...]

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return next(record.dataset for own in self.records.values() for record in own.values())

    @property
    def method(self) -> str:
        """The method as tables show it, with the label of its runs where they have one."""
        return with_label(self.identity.method, self.label)

    @cached_property
    def seeds(self) -> tuple[int | None, ...]:
        """Every training seed of the group, in order."""
        found = {seed for by_seed in self.records.values() for seed in by_seed}
        return tuple(sorted(found, key=lambda seed: (seed is not None, seed or 0)))

    @property
    def runs(self) -> set[str]:
        """The names of the runs."""
        return {record.run for by_seed in self.records.values() for record in by_seed.values()}

    def correct(self, attack: Attack) -> dict[int | None, int]:
        """Return the robust counts under `attack`, by seed."""
        by_seed = self.records.get(attack, {})
        return {seed: by_seed[seed].robust_correct for seed in self.seeds if seed in by_seed}

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """Every attack of the group; evaluations without one are none."""
        return tuple(attack for attack in self.records if attack.suite != CLEAN_SUITE)

    @cached_property
    def robust(self) -> dict[Attack, Figure | None]:
        """The robust accuracy under each attack."""
        return {attack: accuracy(self.correct(attack), self.identity.n) for attack in self.attacks}

    @cached_property
    def clean(self) -> Figure | None:
        """The clean accuracy: each seed's newest evaluation, whatever its suite."""
        newest: dict[int | None, AttackRecord] = {}
        for by_seed in self.records.values():
            for seed, record in by_seed.items():
                if seed not in newest or newest[seed].created < record.created:
                    newest[seed] = record
        return accuracy({seed: newest[seed].clean_correct for seed in self.seeds}, self.identity.n)


#: A record with what it is grouped by.
_Member = tuple[Task, ModelIdentity, AttackRecord]


def group_records(records: Iterable[AttackRecord]) -> dict[Task, list[SeedGroup]]:
    """Return the seed groups of each task, both in the order of the tables."""
    tasks: dict[Task, dict[tuple[ModelIdentity, str, str | None], list[AttackRecord]]] = {}
    members = _place_clean([(_task(record), _identity(record), record) for record in records])
    for task, identity, record in _separate_trainings(members):
        key = (identity, record.selection, record.selected_on)
        tasks.setdefault(task, {}).setdefault(key, []).append(record)
    in_order = sorted(tasks, key=lambda task: (task.dataset, task.norm, Fraction(task.eps)))
    return {
        task: sorted(
            (_make_group(*key, found) for key, found in tasks[task].items()), key=row_order
        )
        for task in in_order
    }


def describe(task: Task) -> str:
    """Return the task as it appears in titles."""
    return f"{task.dataset}, {task.norm} {task.eps}"


def context(task: Task, groups: Sequence[SeedGroup]) -> dict[str, str | float]:
    """Return the values that all rows of a table share."""
    return {"dataset": task.dataset, "norm": task.norm, "eps": groups[0].eps}


def shown_groups(groups: list[SeedGroup]) -> list[SeedGroup]:
    """Return the rows of the main table: best and file, and last where there is no best."""
    with_best = {group.identity for group in groups if group.selection == "best"}
    return [
        group for group in groups if group.selection != "last" or group.identity not in with_best
    ]


def _task(record: AttackRecord) -> Task:
    threat = record.threat_model
    return Task(record.dataset, threat.norm, format_eps(threat.eps))


def _identity(record: AttackRecord) -> ModelIdentity:
    is_third_party = record.weights == "file" or record.seed is None
    return ModelIdentity(
        arch=network_name(record),
        method=method_name(record),
        label="" if record.training_images_sha256 else _shown_label(record),
        split=record.split,
        n=record.n,
        num_test=record.num_test,
        published_test_set=record.published_test_set,
        data_sha256=record.data_sha256,
        precision=record.precision,
        searched=FLOAT32 if record.searched in RANKED else record.searched,
        training=record.training_sha256 or "",
        training_images=record.training_images_sha256 or "",
        weights="+".join(filter(None, (record.weights_sha256, record.model_code)))
        if is_third_party
        else "",
    )


def _shown_label(record: AttackRecord) -> str:
    """Return a record's label, "" for weights that are shown by the name of their run."""
    has_own_row = record.weights == "file" or record.seed is None
    return "" if has_own_row or method_name(record) == record.run else short_label(record)


def _separate_trainings(members: Sequence[_Member]) -> list[_Member]:
    """Give trainings of one seed that ended in different weights an identity of their own."""
    runs: dict[tuple[object, ...], dict[str, set[str]]] = {}
    for member in members:
        by_weights = runs.setdefault(_selection_key(*member), {})
        by_weights.setdefault(member[2].weights_sha256, set()).add(member[2].run)
    repeated = {key[:3] for key, by_weights in runs.items() if len(by_weights) > 1}
    separated = []
    for task, identity, record in members:
        training_run = ""
        if (task, identity, record.seed) in repeated:
            training_run = _name_training(record, runs[_selection_key(task, identity, record)])
        separated.append((task, identity._replace(training_run=training_run), record))
    return separated if repeated else list(members)


def _place_clean(members: Sequence[_Member]) -> list[_Member]:
    """Return the members with those without an attack at each radius where the model has one.

    Where it has none, they stay at the radius that they were recorded with.
    """
    attacked: dict[tuple[object, ...], dict[Task, None]] = {}
    for task, identity, record in members:
        if record.suite != CLEAN_SUITE:
            attacked.setdefault(_model_key(task, identity, record), {})[task] = None
    placed: list[_Member] = []
    for task, identity, record in members:
        own = {task: None}
        if record.suite == CLEAN_SUITE:
            own = attacked.get(_model_key(task, identity, record), own)
        placed += [(place, identity, record) for place in own]
    return placed


def _model_key(task: Task, identity: ModelIdentity, record: AttackRecord) -> tuple[object, ...]:
    return (task.dataset, identity, record.selection, record.selected_on)


def _selection_key(task: Task, identity: ModelIdentity, record: AttackRecord) -> tuple[object, ...]:
    return (task, identity, record.seed, record.selection, record.selected_on)


def _name_training(record: AttackRecord, runs: Mapping[str, set[str]]) -> str:
    """Return a name for the training that a record's weights come from.

    It is the same for the best and the last epoch unless two trainings have one run name.
    """
    own = min(runs[record.weights_sha256])
    is_unique = sum(own in names for names in runs.values()) == 1
    return own if is_unique else f"{own} {record.weights_sha256}"


def attack_of(record: AttackRecord) -> Attack:
    """Return the attack of a record; a parameter that is null is one that was not given."""
    given = {name: value for name, value in record.parameters.items() if value is not None}
    return Attack(record.suite, _canonical(given))


def _make_group(
    identity: ModelIdentity, selection: str, selected_on: str | None, records: list[AttackRecord]
) -> SeedGroup:
    """Return the group of `records`; of two for one seed the newer (`created`, ISO 8601) stays."""
    by_attack: dict[Attack, dict[int | None, AttackRecord]] = {}
    superseded = []
    for record in records:
        by_seed = by_attack.setdefault(attack_of(record), {})
        previous = by_seed.get(record.seed)
        is_newest = previous is None or previous.created <= record.created
        if is_newest:
            by_seed[record.seed] = record
        if previous is not None:
            superseded.append(previous if is_newest else record)
    return SeedGroup(
        identity=identity,
        selection=selection,
        selected_on=selected_on,
        eps=records[0].threat_model.eps,
        label=common_label(_shown_label(record) for record in records),
        records=by_attack,
        superseded=tuple(superseded),
    )


def row_order(group: SeedGroup) -> tuple[object, ...]:
    """Return the sort key of a group among the rows of a table."""
    identity = group.identity
    return (
        group.selection == "file",
        identity.arch,
        method_order(identity.method),
        group.method,
        SELECTIONS.index(group.selection),
        group.selected_on != "val",
        -identity.n,
        identity.precision,
        identity.searched,
        identity.data_sha256,
        identity.training,
        identity.training_images,
        identity.weights,
        identity.training_run,
    )
