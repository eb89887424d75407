"""Records to lines: what may be averaged over training seeds, and what must stay apart.

A line is everything measured on one kind of model (same data, network, method, weights, chosen
epoch) under one threat model; its records differ in suite and training seed only.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from adrbench.baselines import zoo_architecture
from adrbench.errors import AdrbenchError
from adrbench.records import AttackRecord
from adrbench.report.figures import Figure, accuracy
from adrbench.tokens import TOKENS, WEIGHTS, parse_method

ZOO_PREFIX = "robustbench:"
FINAL_PRECISION = "float32"
SELECTIONS = ("best", "last", "file")
OBJECTIVES = tuple(token for token, (slot, _) in TOKENS.items() if slot == "objective")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one table is about; `eps` is text, so that 8/255 and its rounded float are one."""

    dataset: str
    norm: str
    eps: str


@dataclass(frozen=True, kw_only=True)
class Subject:
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
        return f"{self.method} ({self.variant})" if self.variant else self.method

    @property
    def is_on_full_published_test_set(self) -> bool:
        """Whether figures may stand among published ones."""
        whole = self.split == "test" and self.n == self.num_test
        return self.published_test_set and whole and self.precision == FINAL_PRECISION


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One column's worth of attack: the suite and its parameters as canonical JSON."""

    suite: str
    parameters: str


@dataclass(kw_only=True)
class Line:
    """The records of one line by attack and training seed, and those they replaced."""

    subject: Subject
    selection: str
    selected_on: str | None
    eps: float
    records: dict[Attack, dict[int | None, AttackRecord]] = field(default_factory=dict)
    superseded: list[AttackRecord] = field(default_factory=list)

    def add(self, record: AttackRecord) -> None:
        """File `record`; of two for one seed the newer (`created`, ISO 8601) stays."""
        attack = Attack(suite=record.suite, parameters=canonical(record.parameters))
        by_seed = self.records.setdefault(attack, {})
        previous = by_seed.get(record.seed)
        if previous is not None and previous.created > record.created:
            previous, record = record, previous
        by_seed[record.seed] = record
        if previous is not None:
            self.superseded.append(previous)

    @property
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

    def robust(self, attack: Attack) -> Figure | None:
        """Return the robust accuracy under `attack`."""
        return accuracy(self.correct(attack), self.subject.n)

    def clean(self) -> Figure | None:
        """Return the clean accuracy: each seed's newest evaluation, whatever its suite."""
        newest: dict[int | None, AttackRecord] = {}
        for seed in self.seeds:
            found = [by_seed[seed] for by_seed in self.records.values() if seed in by_seed]
            newest[seed] = max(found, key=lambda record: record.created)
        counts = {seed: record.clean_correct for seed, record in newest.items()}
        return accuracy(counts, self.subject.n)


def group(records: Iterable[AttackRecord]) -> dict[Setting, list[Line]]:
    """Return the lines of each setting, both in the order tables show them."""
    settings: dict[Setting, dict[tuple[Subject, str, str | None], Line]] = {}
    for record in records:
        threat = record.threat_model
        setting = Setting(dataset=record.dataset, norm=threat.norm, eps=format_eps(threat.eps))
        lines = settings.setdefault(setting, {})
        key = (_subject(record), record.selection, record.selected_on)
        if key not in lines:
            lines[key] = Line(subject=key[0], selection=key[1], selected_on=key[2], eps=threat.eps)
        lines[key].add(record)
    in_order = sorted(settings, key=lambda s: (s.dataset, s.norm, Fraction(s.eps)))
    return {setting: sorted(settings[setting].values(), key=_line_order) for setting in in_order}


def shown_lines(lines: list[Line]) -> list[Line]:
    """Return the lines of the main table: best and file, and last where there is no best."""
    with_best = {line.subject for line in lines if line.selection == "best"}
    return [line for line in lines if line.selection != "last" or line.subject not in with_best]


def format_eps(eps: float) -> str:
    """Return `eps` (a fraction of 1) as k/255 where it is within 1e-6 of that, else decimal."""
    k = round(eps * 255)
    if 0 < k < 255 and abs(eps - k / 255) < 1e-6:
        return f"{k}/255"
    return f"{eps:g}"


def canonical(parameters: Mapping[str, Any]) -> str:
    """Return one text for equal parameters, whatever their order."""
    return json.dumps(parameters, sort_keys=True)


def row_label(record: AttackRecord) -> str:
    """Return the method a record's weights stand for, or the run's name for foreign weights."""
    method = _method_row(record.method, record.weights) if record.weights in WEIGHTS else None
    return method or record.run


def _subject(record: AttackRecord) -> Subject:
    label = row_label(record)
    is_foreign = record.weights == "file" or record.seed is None
    return Subject(
        arch=_arch_label(record),
        method=label,
        variant="" if is_foreign or label == record.run else _variant(record),
        split=record.split,
        n=record.n,
        num_test=record.num_test,
        published_test_set=record.published_test_set,
        data_sha256=record.data_sha256,
        precision=record.precision,
        training=record.training_sha256 or "",
        weights=record.weights_sha256 if is_foreign else "",
    )


def _arch_label(record: AttackRecord) -> str:
    """Return the network's name; zoo models are recorded under their own, not the network's."""
    if record.run.startswith(ZOO_PREFIX):
        return zoo_architecture(record.run.removeprefix(ZOO_PREFIX)) or record.arch
    plain = record.activation == "relu"
    return record.arch if plain else f"{record.arch} ({record.activation})"


def _variant(record: AttackRecord) -> str:
    """Return the name of a run that does not end as default names do, without its seed."""
    if record.run.endswith(f"-{record.method}-seed{record.seed}"):
        return ""
    return re.sub(rf"[-_]?seed{record.seed}$", "", record.run)


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
        _method_order(subject.method),
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
def _method_order(label: str) -> tuple[int, ...]:
    try:
        method = parse_method(label)
    except AdrbenchError:
        return (len(OBJECTIVES),)
    return (OBJECTIVES.index(method.objective), method.adr, method.awp, method.wa)
