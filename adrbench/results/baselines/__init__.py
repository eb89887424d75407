"""Published robust accuracies to compare with: RobustBench's entries and ADR's paper.

Owns the two tables next to this file, their typed reader, the matching of architecture names
and the ranking. Figures are percentages, eps a fraction of 1.
"""

import csv
import re
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from importlib.resources import files

#: Two radii closer than this are the same threat model.
EPS_TOLERANCE = 1e-6
#: RobustBench's entries for common corruptions have no adversary.
NORMS = ("Linf", "L2")
#: What listings call the published ADR figures.
PAPER = "adr paper"
PAPER_NORM, PAPER_EPS = "Linf", 8 / 255


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One RobustBench entry; accuracies in percent, `venue` empty where none is given."""

    model_id: str
    dataset: str
    norm: str
    eps: float
    architecture: str
    clean_acc: float
    autoattack_acc: float
    external_acc: float | None
    additional_data: bool
    unreliable: bool
    venue: str
    link: str

    @property
    def robust_acc(self) -> float:
        """The figure RobustBench ranks by: a stronger outside evaluation, else AutoAttack."""
        return self.autoattack_acc if self.external_acc is None else self.external_acc


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One published ADR result; accuracies in percent, `extra_data` is none or ddpm."""

    dataset: str
    architecture: str
    method: str
    clean_acc: float
    autoattack_acc: float
    extra_data: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of a result among `of` results, itself included; 1 is the best."""

    place: int
    of: int


@dataclass(frozen=True)
class Leaderboard:
    """Entries of one dataset and threat model, and the places among them."""

    entries: tuple[Baseline, ...]

    def rank(self, robust_acc: float) -> Rank:
        """Return the place of `robust_acc` (percent): 1 + the number of strictly better entries."""
        figures = self._figures
        better = len(figures) - bisect_right(figures, robust_acc)
        return Rank(place=1 + better, of=1 + len(figures))

    def without(self, model_id: str) -> "Leaderboard":
        """Return the other entries than `model_id`."""
        if model_id not in self._model_ids:
            return self
        return Leaderboard(tuple(entry for entry in self.entries if entry.model_id != model_id))

    def of(self, architecture: str) -> "Leaderboard":
        """Return the entries whose network has `architecture` as its canonical spelling."""
        return self._by_architecture.get(architecture, Leaderboard(()))

    @cached_property
    def _figures(self) -> list[float]:
        return sorted(entry.robust_acc for entry in self.entries)

    @cached_property
    def _model_ids(self) -> frozenset[str]:
        return frozenset(entry.model_id for entry in self.entries)

    @cached_property
    def _by_architecture(self) -> dict[str, "Leaderboard"]:
        entries: dict[str, list[Baseline]] = {}
        for entry in self.entries:
            entries.setdefault(canonical_architecture(entry.architecture), []).append(entry)
        return {name: Leaderboard(tuple(found)) for name, found in entries.items()}


def robustbench(dataset: str, norm: str, eps: float) -> list[Baseline]:
    """Return RobustBench's entries for one dataset and threat model, most robust first."""
    entries = [
        entry
        for entry in read_robustbench()
        if (entry.dataset, entry.norm) == (dataset, norm) and _same_eps(entry.eps, eps)
    ]
    return sorted(entries, key=lambda entry: -entry.robust_acc)


def other_radii(dataset: str, norm: str, eps: float) -> list[float]:
    """Return the eps of each entry of the same leaderboard that has another eps than `eps`."""
    return [
        entry.eps
        for entry in read_robustbench()
        if (entry.dataset, entry.norm) == (dataset, norm) and not _same_eps(entry.eps, eps)
    ]


def paper(dataset: str, norm: str = PAPER_NORM, eps: float = PAPER_EPS) -> list[PaperRow]:
    """Return the paper's rows for `dataset`; none for another threat model than the paper's."""
    if norm != PAPER_NORM or not _same_eps(eps, PAPER_EPS):
        return []
    return [row for row in read_paper() if row.dataset == dataset]


@cache
def canonical_architecture(name: str) -> str:
    """Return one spelling for the names that we, RobustBench and the paper give a network.

    "resnet18" and "ResNet-18" are one; so are "wrn-34-10", "WRN-34-10" and "WideResNet-34-10".
    """
    lower = name.lower().replace("wideresnet", "wrn")
    return re.sub(r"(?<!\d)[-_]|[-_](?!\d)", "", lower)


@cache
def zoo_architecture(model_id: str) -> str | None:
    """Return RobustBench's name for the network of one of its entries; None if it has none."""
    found = (entry for entry in read_robustbench() if entry.model_id == model_id)
    return next((entry.architecture for entry in found), None)


@cache
def read_robustbench() -> tuple[Baseline, ...]:
    """Read every entry that was attacked within an Linf or L2 ball."""
    return tuple(
        Baseline(
            model_id=row["model_id"],
            dataset=row["dataset"],
            norm=row["threat_model"],
            eps=float(Fraction(row["eps"])),
            architecture=row["architecture"],
            clean_acc=float(row["clean_acc"]),
            autoattack_acc=float(row["autoattack_acc"]),
            external_acc=float(row["external_acc"]) if row["external_acc"] else None,
            additional_data=row["additional_data"] == "True",
            unreliable=row["unreliable"] == "True",
            venue=row["venue"].replace("<br>", " "),
            link=row["link"],
        )
        for row in _rows("robustbench.csv")
        if row["threat_model"] in NORMS
    )


@cache
def read_paper() -> tuple[PaperRow, ...]:
    """Read every published ADR row."""
    return tuple(
        PaperRow(
            dataset=row["dataset"],
            architecture=row["architecture"],
            method=row["method"],
            clean_acc=float(row["clean_acc"]),
            autoattack_acc=float(row["autoattack_acc"]),
            extra_data=row["extra_data"],
            source=row["source"],
        )
        for row in _rows("adr_paper.csv")
    )


def _same_eps(one: float, other: float) -> bool:
    return abs(one - other) < EPS_TOLERANCE


def _rows(name: str) -> list[dict[str, str]]:
    text = files("adrbench.results.baselines").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
