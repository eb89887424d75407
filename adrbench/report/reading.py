"""Reading the records of a report from directories and files, each record once."""

from collections.abc import Sequence
from pathlib import Path

from adrbench.config.declare import format_eps
from adrbench.errors import UsageError
from adrbench.report.attack_labels import at_relative_step
from adrbench.report.grouping import attack_of
from adrbench.results.inspection import InspectRecord
from adrbench.results.records import (
    PUBLISHED,
    AttackRecord,
    Record,
    Skipped,
    TrainRecord,
    check_exists,
    read_record,
    read_records,
)

#: Where the other commands write results unless told otherwise.
DEFAULT = Path("results")


def read_results(paths: Sequence[Path], skipped: Skipped | None = None) -> list[Record]:
    """Return the records in `paths`, directories or single files, each file once.

    Files in a directory that are not records are omitted and added to `skipped`.

    Raises:
        RecordError: when a path is missing, a directory has no record, or a file is not a record.

    """
    for path in paths:
        check_exists(path)
    distinct = {path.resolve(): path for path in paths}
    shown = [
        path
        for resolved, path in distinct.items()
        if not any(_holds(other, resolved) for other in distinct)
    ]
    records: list[Record] = []
    for path in shown:
        records += [read_record(path)] if path.is_file() else read_records(path, skipped)
    return records


def select_datasets(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """Return the records of the data sets `names`, each of which may list several by commas.

    Raises:
        UsageError: when a data set has no record.

    """
    present = dict.fromkeys(sorted(record.dataset for record in records))
    wanted: set[str] = set()
    for name in names:
        # The name of a user's own data may contain a comma.
        parts = [name] if name in present else [part.strip() for part in name.split(",")]
        for part in parts:
            if part not in present:
                raise UsageError(f"no results on {part!r}: choose from {', '.join(present)}.")
        wanted.update(parts)
    return [record for record in records if record.dataset in wanted]


def select_latest(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each run, inspected checkpoint and version of an evaluation.

    Evaluations are distinguished by the names of the model and its data set, the checkpoint and
    weights, the suite's name and the norm. Of these, only the records of the newest version are
    returned, one for each radius: those of the weights, the images, the code and the attack of the
    newest record.
    """
    newest: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in sorted(records, key=lambda record: record.created):
        if isinstance(record, TrainRecord):
            newest[record.kind, record.run, record.dataset] = {"": record}
            continue
        if isinstance(record, InspectRecord):
            newest[record.kind, record.run, record.dataset, record.selection] = {"": record}
            continue
        threat = record.threat_model
        names = (record.run, record.dataset, record.selection, record.weights)
        by_radius = newest.setdefault((record.kind, *names, record.suite, threat.norm), {})
        if not all(_is_same_version(one, record) for one in by_radius.values()):
            by_radius.clear()
        by_radius[format_eps(threat.eps)] = record
    chosen = {id(record) for by_radius in newest.values() for record in by_radius.values()}
    return [record for record in records if id(record) in chosen]


def _is_same_version(one: Record, other: AttackRecord) -> bool:
    """Return whether two evaluations differ in nothing but their radius."""
    if not isinstance(one, AttackRecord):
        return False
    names = ("weights_sha256", "model_code", "attack_seed", "data_sha256", "n")
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    attacks = [attack_of(each) for each in (one, other)]
    relative = [
        at_relative_step(attack, each.threat_model.eps)
        for attack, each in zip(attacks, (one, other), strict=True)
    ]
    return attacks[0] == attacks[1] or relative[0] == relative[1]


def _holds(directory: Path, path: Path) -> bool:
    """Return whether reading `directory` includes `path`; PUBLISHED must be given explicitly."""
    published = directory / PUBLISHED
    return (
        directory in path.parents
        and published not in (path, *path.parents)
        and not path.name.startswith(".")
    )
