"""Published figures alone, without results: the leaderboards of RobustBench and ADR's paper."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from adrbench.config.declare import format_eps
from adrbench.errors import UsageError, unknown_name
from adrbench.report import columns as c
from adrbench.report.baseline_tables import PAPER_NOTE, UNRELIABLE_FOOTNOTE
from adrbench.report.tables import Report, Row, Table
from adrbench.results.baselines import (
    NORMS,
    PAPER_EPS,
    PAPER_NORM,
    Baseline,
    Leaderboard,
    PaperRow,
    paper,
    read_paper,
    read_robustbench,
    robustbench,
)

STRONGER_FOOTNOTE = "ranked by its lower accuracy under a stronger evaluation than AutoAttack"


class _Threat(NamedTuple):
    norm: str
    eps: float

    def __str__(self) -> str:
        return f"{self.norm} {format_eps(self.eps)}"


def published_report(dataset: str, norm: str | None = None, eps: float | None = None) -> Report:
    """Return the published rows of a data set, a table for each threat model and source.

    `norm` and `eps`, a fraction of 1, select threat models.

    Raises:
        UsageError: when nothing is published on the data set or for such a threat model.

    """
    datasets = sorted(
        {one.dataset for one in read_robustbench()} | {row.dataset for row in read_paper()}
    )
    if dataset not in datasets:
        raise UsageError(
            f"there are no published baselines on {dataset!r}: choose from {', '.join(datasets)}."
        )
    if norm is not None and norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    present = _list_threats(dataset)
    selected = [
        threat
        for threat in present
        if norm in (None, threat.norm)
        and (eps is None or str(threat) == str(_Threat(threat.norm, eps)))
    ]
    if not selected:
        given = [norm or "", "" if eps is None else f"eps {format_eps(eps)}"]
        raise UsageError(
            f"there are no published baselines on {dataset} under {' '.join(filter(None, given))}: "
            f"choose from {', '.join(map(str, present))}."
        )
    tables = [table for threat in selected for table in _tables(dataset, threat)]
    return Report(tables=tuple(tables))


def _list_threats(dataset: str) -> list[_Threat]:
    """Return the threat models with published rows on `dataset`."""
    found = {_Threat(one.norm, one.eps) for one in read_robustbench() if one.dataset == dataset}
    if paper(dataset):
        found.add(_Threat(PAPER_NORM, PAPER_EPS))
    by_text = {str(threat): threat for threat in found}  # 8/255 is one radius, however rounded
    return sorted(by_text.values())


def _tables(dataset: str, threat: _Threat) -> list[Table]:
    entries = robustbench(dataset, *threat)
    rows = paper(dataset, *threat)
    tables = [_leaderboard_table(dataset, threat, entries)] if entries else []
    return tables + ([_paper_table(dataset, threat, rows)] if rows else [])


def _leaderboard_table(dataset: str, threat: _Threat, entries: Sequence[Baseline]) -> Table:
    leaderboard = Leaderboard(tuple(entries))
    return Table(
        name="robustbench",
        title=f"RobustBench (%), {dataset}, {threat}",
        context=_context(dataset, threat),
        columns=c.LEADERBOARD,
        rows=tuple(_entry_row(entry, leaderboard) for entry in entries),
    )


def _entry_row(entry: Baseline, leaderboard: Leaderboard) -> Row:
    footnotes = [UNRELIABLE_FOOTNOTE] if entry.unreliable else []
    if entry.robust_acc != entry.autoattack_acc:
        footnotes.append(STRONGER_FOOTNOTE)
    return Row(
        cells={
            "rank": leaderboard.rank(entry.robust_acc).place,
            "method": entry.model_id,
            "arch": entry.architecture.replace("WideResNet", "WRN"),
            "clean": entry.clean_acc,
            "robust": entry.autoattack_acc,
            "extra_data": "yes" if entry.additional_data else "no",
            "source": entry.venue or None,
        },
        footnotes=tuple(footnotes),
        is_ours=False,
    )


def _paper_table(dataset: str, threat: _Threat, rows: Iterable[PaperRow]) -> Table:
    return Table(
        name="paper",
        title=f"ADR paper (%), {dataset}, {threat}",
        context=_context(dataset, threat),
        columns=(c.ARCH, *c.PAPER, c.SOURCE),
        rows=tuple(
            Row(
                cells={
                    "arch": row.architecture,
                    "method": row.method,
                    "extra_data": row.extra_data,
                    "clean": row.clean_acc,
                    "robust": row.autoattack_acc,
                    "source": row.source,
                },
                is_ours=False,
            )
            for row in rows
        ),
        notes=(PAPER_NOTE,),
    )


def _context(dataset: str, threat: _Threat) -> dict[str, str | float]:
    return {"dataset": dataset, "norm": threat.norm, "eps": threat.eps}
