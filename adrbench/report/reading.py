"""Reading the records of a report from directories and files, each record once."""

from collections.abc import Sequence
from pathlib import Path

from adrbench.config.declare import format_eps
from adrbench.errors import UsageError
from adrbench.results.records import (
    PUBLISHED,
    AttackRecord,
    Record,
    Skipped,
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
    """Return the newest record of each training run and of each evaluation of a model.

    Evaluations are told apart by the names of the model and its data set, the checkpoint and
    weights, the suite's name and the threat model. Records of earlier weights, of an earlier
    version of an attack or on other images are therefore omitted once there is a newer one.
    """
    newest: dict[tuple[object, ...], Record] = {}
    for record in records:
        key: tuple[object, ...] = (record.kind, record.run, record.dataset)
        if isinstance(record, AttackRecord):
            threat = record.threat_model
            key += (record.selection, record.weights, record.suite)
            key += (threat.norm, format_eps(threat.eps))
        if key not in newest or newest[key].created <= record.created:
            newest[key] = record
    chosen = {id(record) for record in newest.values()}
    return [record for record in records if id(record) in chosen]


def _holds(directory: Path, path: Path) -> bool:
    """Return whether reading `directory` includes `path`; PUBLISHED must be given explicitly."""
    published = directory / PUBLISHED
    return (
        directory in path.parents
        and published not in (path, *path.parents)
        and not path.name.startswith(".")
    )
