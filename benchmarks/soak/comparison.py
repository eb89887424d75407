"""Compare files of a killed run with those of an uninterrupted one, and before and after a kill.

Checkpoints, histories and per-example outcomes have to be identical, bit for bit.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from benchmarks.soak.commands import SAVED
from benchmarks.soak.directory_state import DirectoryState, Progress

#: Fields that may differ: when, for how long and from which checkout something was computed, and
#: the random id of a run.
VOLATILE = {
    "seconds",
    "stage_seconds",
    "images_per_second",
    "sessions",
    "started",
    "created",
    "software",
    "run_id",
}
MISSING = ("missing",)


def find_lost_progress(before: Progress, after: Progress) -> Iterator[str]:
    """Yield a sentence for each run or evaluation that has less progress than before."""
    for name, position in before.items():
        now = after.get(name, (0, 0))
        if now < position:
            yield f"saved progress was lost: {name} is at {now} and was at {position}"


def find_false_report(stderr: str, progress: Progress) -> Iterator[str]:
    """Yield a sentence if an interrupted training reports a save that is not on disk."""
    reported = SAVED.search(stderr)
    if reported is None:
        return
    epoch, step = int(reported[1]), int(reported[2] or 0)
    position = (epoch - 1, step) if step else (epoch, 0)
    if position not in progress.values():
        yield f"stderr reports that the run was {reported[0]}, but the progress is {progress}"


def compare(killed: DirectoryState, uninterrupted: DirectoryState) -> list[str]:
    """Return the leftovers of two directories of finished work and their first difference."""
    problems = [f"{name} is left over" for name in (*killed.leftovers, *uninterrupted.leftovers)]
    difference = find_difference(killed.contents, uninterrupted.contents)
    return [*problems, f"the results differ: {difference}"] if difference else problems


def find_difference(ours: object, theirs: object) -> str | None:
    """Return the first difference of two contents except in VOLATILE fields, or None.

    Tensors are compared bit by bit, numbers with their types.
    """
    a, b = dict(flatten(ours)), dict(flatten(theirs))
    for path in a | b:
        one, other = a.get(path, MISSING), b.get(path, MISSING)
        if one != other:
            return f"{path} is {one[0]}, not {other[0]}"
    return None


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the path of each value in a tree, a short text for messages, and the exact value."""
    items: Iterable[tuple[object, Any]]
    if is_dataclass(value):
        items = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        text = " ".join(repr(value).split())
        yield path, (text if len(text) <= 60 else f"{text[:57]}...", *exact(value))
        return
    yield path, (f"a {type(value).__name__}",)
    for key, item in items:
        if key not in VOLATILE:
            yield from flatten(item, f"{path}/{key}")


def exact(value: Any) -> tuple[Any, ...]:
    """Return a tensor as its type, shape and bytes, any other value as its type and text."""
    if not isinstance(value, torch.Tensor):
        return type(value), repr(value)
    flat = value.detach().contiguous().reshape(-1)
    return value.dtype, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
