"""Names of rows and models outside of tables, where columns do not say what they are."""

from collections.abc import Iterable, Sequence

from adrbench.report import columns as c
from adrbench.report.cell_text import cut
from adrbench.report.outputs.statistics import OutputStatistics
from adrbench.report.tables import Column, Row

#: The columns that name a row, in the order of its name.
_NAMES = (c.METHOD, c.AGAINST, c.ARCH, c.CHECKPOINT, c.SUITE, c.N, c.SEEDS)
VERSUS = "vs "


def name_rows(rows: Sequence[Row], without: Sequence[Column] = ()) -> list[str]:
    """Return a name for each row: its method and reference, and what else differs between rows."""
    skipped = {column.key for column in without}
    columns = [column for column in _NAMES if column.key not in skipped]
    return _name([[_spell(row, column) for column in columns] for row in rows], num_always=2)


def name_models(models: Sequence[OutputStatistics]) -> list[str]:
    """Return a name for each model: its method, and what else differs between the models."""
    return _name(
        [
            [
                model.group.method,
                model.group.identity.arch,
                "" if model.group.selection == "file" else model.group.selection,
                model.suite,
                f"n {model.n}",
            ]
            for model in models
        ]
    )


def describe_epoch(selection: object) -> str:
    """Return ", best epoch" or ", last epoch"; "" for weights that were not trained here."""
    return f", {selection} epoch" if selection in ("best", "last") else ""


def _name(items: Sequence[Sequence[str]], num_always: int = 1) -> list[str]:
    """Return the first parts of each item, and those of the others in which the items differ."""
    differ = [len(set(parts)) > 1 for parts in zip(*items, strict=True)]
    return [
        cut(_join(part for i, part in enumerate(item) if i < num_always or differ[i]))
        for item in items
    ]


def _join(parts: Iterable[str]) -> str:
    return ", ".join(filter(None, parts)).replace(f", {VERSUS}", f" {VERSUS}")


def _spell(row: Row, column: Column) -> str:
    cell = row.cells.get(column.key)
    if cell in (None, "", column.absent):
        return ""
    if column is c.AGAINST:
        return f"{VERSUS}{cell}"
    if column is c.SEEDS:
        return f"{cell} seed" if cell == 1 else f"{cell} seeds"
    return f"n {cell}" if column is c.N else str(cell)
