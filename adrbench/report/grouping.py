"""Records to lines: what may be averaged over training seeds, and what must stay apart.

A line is everything measured on one kind of model (same data, network, method, weights, chosen
epoch) under one threat model; its records differ in suite and training seed only.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import NamedTuple

from adrbench.config.components import COMPONENTS
from adrbench.config.declare import format_eps
from adrbench.config.method import WEIGHTS, parse_method
from adrbench.errors import AdrbenchError
from adrbench.report.statistics import Figure, accuracy
from adrbench.results.baselines import canonical_architecture, zoo_architecture
from adrbench.results.records import AttackRecord, TrainRecord

ZOO_PREFIX = "robustbench:"
FINAL_PRECISION = "float32"
SELECTIONS = ("best", "last", "file")

#: Parameters as one text, whatever their order.
_canonical = json.JSONEncoder(sort_keys=True).encode


class Setting(NamedTuple):
    """What one table is about; `eps` is text, so that 8/255 and its rounded float are one."""

    dataset: str
    norm: str
    eps: str


class Subject(NamedTuple):
    """The model of a line, whichever of its epochs was chosen.

    `variant` is the name of a run that was named by hand: its configuration may differ from the
    preset, so it is a line of its own. `training` identifies the training settings without the
    seed; `weights` the weights themselves, and is empty where the training seed is known.
    """

    arch: str
    method: str
    variant: str
    split: str
    n: int
    num_test: int
    published_test_set: bool
    data_sha256: str
    precision: str
    training: str
    weights: str

    @property
    def label(self) -> str:
        """The method, with the run's own name where it has one."""
        return label(self.method, self.variant)

    @property
    def architecture(self) -> str:
        """The network in canonical spelling, whatever its activation."""
        return canonical_architecture(self.arch.partition(" (")[0])

    @property
    def is_on_full_published_test_set(self) -> bool:
        """Whether figures may stand among published ones."""
        whole = self.split == "test" and self.n == self.num_test
        return self.published_test_set and whole and self.precision == FINAL_PRECISION


class Attack(NamedTuple):
    """One column's worth of attack: the suite and its parameters as canonical JSON."""

    suite: str
    parameters: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """The records of one line by attack and training seed, and those they replaced."""

    subject: Subject
    selection: str
    selected_on: str | None
    eps: float
    records: Mapping[Attack, Mapping[int | None, AttackRecord]]
    superseded: tuple[AttackRecord, ...]

    @cached_property
    def seeds(self) -> tuple[int | None, ...]:
        """Every training seed of the line, in order."""
        found = {seed for by_seed in self.records.values() for seed in by_seed}
        return tuple(sorted(found, key=lambda seed: (seed is not None, seed or 0)))

    @property
    def runs(self) -> set[str]:
        """The names of the line's runs."""
        return {record.run for by_seed in self.records.values() for record in by_seed.values()}

    def correct(self, attack: Attack) -> dict[int | None, int]:
        """Return the robust counts under `attack`, by seed."""
        by_seed = self.records.get(attack, {})
        return {seed: by_seed[seed].robust_correct for seed in self.seeds if seed in by_seed}

    @cached_property
    def robust(self) -> dict[Attack, Figure | None]:
        """The robust accuracy under each attack of the line."""
        return {attack: accuracy(self.correct(attack), self.subject.n) for attack in self.records}

    @cached_property
    def clean(self) -> Figure | None:
        """The clean accuracy: each seed's newest evaluation, whatever its suite."""
        newest: dict[int | None, AttackRecord] = {}
        for by_seed in self.records.values():
            for seed, record in by_seed.items():
                if seed not in newest or newest[seed].created < record.created:
                    newest[seed] = record
        return accuracy({seed: newest[seed].clean_correct for seed in self.seeds}, self.subject.n)


def group(records: Iterable[AttackRecord]) -> dict[Setting, list[Line]]:
    """Return the lines of each setting, both in the order tables show them."""
    settings: dict[Setting, dict[tuple[Subject, str, str | None], list[AttackRecord]]] = {}
    for record in records:
        threat = record.threat_model
        setting = Setting(record.dataset, threat.norm, format_eps(threat.eps))
        key = (_subject(record), record.selection, record.selected_on)
        settings.setdefault(setting, {}).setdefault(key, []).append(record)
    in_order = sorted(settings, key=lambda s: (s.dataset, s.norm, Fraction(s.eps)))
    return {
        setting: sorted(
            (_line(*key, found) for key, found in settings[setting].items()), key=_line_order
        )
        for setting in in_order
    }


def describe(setting: Setting) -> str:
    """Return the setting as titles say it."""
    return f"{setting.dataset}, {setting.norm} {setting.eps}"


def context(setting: Setting, lines: Sequence[Line]) -> dict[str, str | float]:
    """Return what every row of a table shares."""
    return {"dataset": setting.dataset, "norm": setting.norm, "eps": lines[0].eps}


def shown_lines(lines: list[Line]) -> list[Line]:
    """Return the lines of the main table: best and file, and last where there is no best."""
    with_best = {line.subject for line in lines if line.selection == "best"}
    return [line for line in lines if line.selection != "last" or line.subject not in with_best]


def row_label(record: AttackRecord) -> str:
    """Return the method a record's weights stand for, or the run's name for foreign weights."""
    method = _method_row(record.method, record.weights) if record.weights in WEIGHTS else None
    return method or record.run


def _line(
    subject: Subject, selection: str, selected_on: str | None, records: list[AttackRecord]
) -> Line:
    """File `records` in a line; of two for one seed the newer (`created`, ISO 8601) stays."""
    by_attack: dict[Attack, dict[int | None, AttackRecord]] = {}
    superseded = []
    for record in records:
        # A parameter that is null is one that was not given.
        given = {name: value for name, value in record.parameters.items() if value is not None}
        attack = Attack(record.suite, _canonical(given))
        by_seed = by_attack.setdefault(attack, {})
        previous = by_seed.get(record.seed)
        is_newest = previous is None or previous.created <= record.created
        if is_newest:
            by_seed[record.seed] = record
        if previous is not None:
            superseded.append(previous if is_newest else record)
    return Line(
        subject=subject,
        selection=selection,
        selected_on=selected_on,
        eps=records[0].threat_model.eps,
        records=by_attack,
        superseded=tuple(superseded),
    )


def _subject(record: AttackRecord) -> Subject:
    label = row_label(record)
    is_foreign = record.weights == "file" or record.seed is None
    return Subject(
        arch=network(record),
        method=label,
        variant="" if is_foreign or label == record.run else variant(record),
        split=record.split,
        n=record.n,
        num_test=record.num_test,
        published_test_set=record.published_test_set,
        data_sha256=record.data_sha256,
        precision=record.precision,
        training=record.training_sha256 or "",
        weights=record.weights_sha256 if is_foreign else "",
    )


def network(record: AttackRecord) -> str:
    """Return the network's name; zoo models are recorded under their own, not the network's."""
    if record.run.startswith(ZOO_PREFIX):
        return zoo_architecture(record.run.removeprefix(ZOO_PREFIX)) or record.arch
    return arch_label(record.arch, record.activation)


def arch_label(arch: str, activation: str) -> str:
    """Return the name of a network and, unless it is ReLU, of its activation."""
    return arch if activation == "relu" else f"{arch} ({activation})"


def label(method: str, name: str) -> str:
    """Return a method as rows show it, with what a run's own name adds."""
    return f"{method} ({name})" if name else method


def variant(record: AttackRecord | TrainRecord) -> str:
    """Return what a run's name says beyond data, network, method and seed, "" where it is nothing.

    `cifar10-resnet18-long-at-seed0` is "resnet18-long", `cifar10-resnet18-at-seed0` is nothing.
    """
    name = record.run.removeprefix(f"{record.dataset}-")
    name = re.sub(rf"[-_]?seed{record.seed}$", "", name)
    name = re.sub(rf"(^|-){re.escape(record.method)}$", "", name)
    if isinstance(record, TrainRecord):
        activation = record.config.get("activation")
    else:
        activation = record.activation
    return "" if name in (record.arch, f"{record.arch}-{activation}") else name


@cache
def _method_row(method: str, weights: str) -> str | None:
    try:
        return parse_method(method).row(weights)
    except AdrbenchError:
        return None


def _line_order(line: Line) -> tuple[object, ...]:
    subject = line.subject
    return (
        line.selection == "file",
        subject.arch,
        method_order(subject.method),
        subject.label,
        SELECTIONS.index(line.selection),
        line.selected_on != "val",
        -subject.n,
        subject.precision,
        subject.data_sha256,
        subject.training,
        subject.weights,
    )


@cache
def method_order(label: str) -> tuple[int, ...]:
    """Return where a method stands among others; what is none comes last."""
    try:
        return parse_method(label).order
    except AdrbenchError:
        return (len(COMPONENTS),)
