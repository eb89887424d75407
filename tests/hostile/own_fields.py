"""Checkpoints of ours in which one value is odd, with a checksum that fits."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adrbench.checkpoints import format as checkpoints
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from hostile.limited import Case
from hostile.odd_tensors import NAME, checkpoint, save_with_checksum, weights


def nested_lists(levels: int) -> list[Any]:
    """Return lists within each other."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def doubled_lists(levels: int) -> list[Any]:
    """Return lists that each contain the one before it twice."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def doubled_tables(levels: int) -> dict[str, Any]:
    """Return tables that each contain the one before it twice."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value, "b": value}
    return value


def long_names(levels: int) -> dict[str, Any]:
    """Return tables within each other under long names, with many values in the innermost."""
    value: dict[str, Any] = {"a" * 1000: [[None] * 1000] * 900}
    for _ in range(levels):
        value = {"a" * 1000: value}
    return value


@cache
def make_values() -> dict[str, Any]:
    """Return what replaces a value, by its description."""
    shared = torch.ones(1000)
    return {
        "NUL": "a\0b",
        "a lone surrogate": "a\ud800b",
        "escape sequences": "\x1b]0;title\x07\x1b[2J",
        "a line break": "a\nb",
        "a path": "../../outside",
        "empty": "",
        "long": "x" * 1_000_000,
        "10**9": 10**9,
        "2**62": 2**62,
        "2**80": 2**80,
        "10**600": 10**600,
        "zero": 0,
        "-1": -1,
        "NaN": float("nan"),
        "infinity": float("inf"),
        "None": None,
        "True": True,
        "bytes": b"abc",
        "a list": [1, 2],
        "a hundred lists": nested_lists(99),
        "lists within lists": nested_lists(300),
        "shared lists": doubled_lists(40),
        "shared tables": doubled_tables(40),
        "a tensor": torch.ones(2),
        "a sparse tensor": torch.eye(3).to_sparse(),
        "tensors that overlap": [shared] * 10_000,
        "a dtype": torch.float32,
        "an object": nn.Identity(),
        "a complex number": 1j,
        "long names within long names": long_names(90),
        "a table with a tensor as a name": {torch.ones(2): 1},
        "a table with tuples as names": {("a" * 1000,) * 1000: [None] * 100_000},
        "text that repr makes long": "\0" * 1_000_000,
        "an unknown user": "~nosuchuser/data.npz",
        "a table with numbers as names": {1: 2},
    }


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value in tables, except to the tensors of a state dict."""
    for key, item in value.items():
        yield (*above, key)
        if isinstance(item, dict) and key != "state":
            yield from places(item, (*above, key))


def good(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint of ours, without its checksum."""
    checkpoints.save(folder / NAME, checkpoint(weights()))
    content: dict[str, Any] = torch.load(folder / NAME, weights_only=True)
    del content[checkpoints.CHECKSUM]
    return content


def put(place: tuple[Any, ...], value: Any, content: dict[str, Any]) -> None:
    """Replace the value at a place."""
    *above, last = place
    for key in above:
        content = content[key]
    content[last] = value


def make(place: tuple[Any, ...], says: str, folder: Path) -> None:
    """Write a checkpoint with one odd value."""
    content = good(folder)
    put(place, make_values()[says], content)
    save_with_checksum(folder / NAME, content)


def remove(place: tuple[Any, ...], folder: Path) -> None:
    """Write a checkpoint without one of its values."""
    content = good(folder)
    *above, last = place
    inner = content
    for key in above:
        inner = inner[key]
    del inner[last]
    save_with_checksum(folder / NAME, content)


def read(folder: Path) -> object:
    """Load the model as `adrbench attack` does."""
    return resolve_targets(str(folder / NAME), TargetOptions(dataset="digits"))


def cases() -> Iterator[Case]:
    """Yield every value in every place."""
    with tempfile.TemporaryDirectory() as folder:
        content = good(Path(folder))
    for place in places(content):
        makers: dict[str, Callable[[Path], None]] = {
            **{says: partial(make, place, says) for says in make_values()},
            "missing": partial(remove, place),
        }
        for says, maker in makers.items():
            yield Case(f"{'.'.join(map(str, place))} is {says}", maker, read)
