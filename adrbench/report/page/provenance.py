"""What a page says of its records: what was evaluated, with what, when, and which warnings."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from adrbench.config.declare import format_eps
from adrbench.report.cell_text import cut
from adrbench.report.page.content import Block
from adrbench.report.tables import Cell, Column, Row, Table
from adrbench.results.provenance import package_version
from adrbench.results.records import AttackRecord, Record, TrainRecord

#: Packages on which outcomes depend.
PACKAGES = ("adrbench", "torch", "pyautoattack")
#: Longer warnings are cut.
MOST_IN_WARNING = 1_000
#: A warning names at most this many models.
MOST_NAMED = 3


def describe_records(records: Sequence[Record], written: datetime) -> dict[str, str]:
    """Return the facts at the head of a page, by name."""
    attacked = [record for record in records if isinstance(record, AttackRecord)]
    trained = [record for record in records if isinstance(record, TrainRecord)]
    threats = dict.fromkeys(
        f"{one.threat_model.norm} {format_eps(one.threat_model.eps)}" for one in attacked
    )
    created = sorted(record.created for record in records)
    facts = {
        "Data sets": ", ".join(sorted({record.dataset for record in records})),
        "Threat models": ", ".join(threats),
        "Networks": ", ".join(sorted({record.arch for record in records})),
        "Evaluations": f"{len(attacked):,} of "
        f"{len({one.weights_sha256 for one in attacked}):,} sets of weights",
        "Training runs": f"{len(trained):,}" if trained else "",
        "Warnings": _count_warnings(attacked),
        "Devices": "; ".join(sorted({record.device for record in records})),
        "Measured": _span(created[0][:10], created[-1][:10]) if created else "",
        "Written": f"{written:%Y-%m-%d %H:%M} UTC by adrbench {package_version('adrbench')}",
    }
    return {name: cut(fact) for name, fact in facts.items() if fact}


def _count_warnings(attacked: Iterable[AttackRecord]) -> str:
    """Return how many evaluations have warnings, "" for none."""
    count = sum(bool(record.warnings) for record in attacked)
    return f"in {count:,} evaluations, see Provenance" if count else ""


def provenance_blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """Return the software behind the records, and the warnings in them."""
    blocks = [Block(title="Software and hardware", tables=(_software_table(records),))]
    warnings = _warning_table(records)
    if warnings.rows:
        blocks.insert(0, Block(title="Warnings", tables=(warnings,)))
    return tuple(blocks)


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _software_table(records: Iterable[Record]) -> Table:
    counts = Counter(
        (
            record.kind,
            *(record.software.versions.get(name, "") for name in PACKAGES),
            _commit(record),
            record.device,
            record.precision,
        )
        for record in records
        if isinstance(record, AttackRecord | TrainRecord)
    )
    keys = ("kind", *PACKAGES, "commit", "device", "precision")
    rows = []
    for values, count in sorted(counts.items()):
        cells: dict[str, Cell] = {**dict(zip(keys, values, strict=True)), "records": count}
        rows.append(Row(cells=cells))
    columns = [Column(key=key, label=key) for key in keys]
    return Table(
        name="provenance",
        title="Records by software and hardware",
        context={},
        columns=(*columns, Column(key="records", label="records", role="value", align="right")),
        rows=tuple(rows),
        notes=("commit: of adrbench; + where its working tree had changes.",),
    )


def _commit(record: AttackRecord | TrainRecord) -> str:
    commit = (record.software.commit or "")[:12]
    return f"{commit}+" if record.software.dirty else commit


def _warning_table(records: Iterable[Record]) -> Table:
    runs: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    for record in records:
        for warning in record.warnings if isinstance(record, AttackRecord) else ():
            runs.setdefault(warning, {})[record.run] = None
            counts[warning] += 1
    rows = []
    for warning, count in counts.most_common():
        names = list(runs[warning])
        others = len(names) - MOST_NAMED
        models = ", ".join(names[:MOST_NAMED]) + (f" and {others} more" if others > 0 else "")
        rows.append(Row(cells={"warning": warning, "evaluations": count, "models": models}))
    return Table(
        name="warnings",
        title="Warnings of evaluations",
        context={},
        columns=(
            Column(key="warning", label="warning", most_characters=MOST_IN_WARNING),
            Column(key="evaluations", label="evaluations", role="value", align="right"),
            Column(key="models", label="models"),
        ),
        rows=tuple(rows),
    )
