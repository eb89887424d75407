"""Records, progress, settings and histories in which one value is odd."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from hostile import mutations
from hostile.limited import Case
from hostile.mutations import odd_json


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a place."""
    if not place:
        return value
    first, *rest = place
    copied = dict(content) if isinstance(content, dict) else list(content)
    copied[first] = replaced(copied[first], tuple(rest), value)
    return copied


def spoil(content: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield changes of one value, with what each of them is."""
    for place, index in product(mutations.places(content), range(len(odd_json()))):
        where = ".".join(map(str, place))
        says = f"{where} is {odd_json()[index]!r:.40}"
        yield says, partial(replaced, content, place, odd_json()[index])


def write(name: str, spell: Callable[[Any], str], change: Callable[[], Any], folder: Path) -> None:
    """Write a file with a changed value."""
    (folder / name).write_text(spell(change()))


def cases() -> Iterator[Case]:
    """Yield every value in every place of every kind of file."""
    spell_progress = mutations.spell_progress
    kinds: dict[str, tuple[Any, str, Callable[[Any], str], Callable[[Path], object]]] = {
        **{
            f"{record['kind']} record {number}": (
                record,
                "record.json",
                json.dumps,
                partial(mutations.read_results, "markdown"),
            )
            for number, record in enumerate(mutations.documents())
        },
        "progress": (
            mutations.good_state()["state"],
            mutations.progress_files(Path()).own_file.name,
            spell_progress,
            mutations.read_progress,
        ),
        "settings": (
            mutations.good_settings(),
            "config.json",
            json.dumps,
            mutations.read_settings,
        ),
        "history": (
            mutations.good_history()[0],
            "history.jsonl",
            lambda row: json.dumps(row) + "\n",
            mutations.read_history,
        ),
    }
    for kind, (content, name, spell, read) in kinds.items():
        for says, change in spoil(content):
            yield Case(f"{kind}: {says}", partial(write, name, spell, change), read)
