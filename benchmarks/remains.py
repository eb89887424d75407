"""What runs and evaluations have left on disk: read whole, how far they are, and what differs.

Everything is read by what the package itself reads it with.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints import format as checkpoint
from adrbench.checkpoints.format import Checkpoint
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError
from adrbench.evaluation.progress import SUFFIX, Progress, ProgressFiles, combine
from adrbench.results.records import read_record

#: What may be left behind by a kill: locks, and files that were being written.
LOCK = re.compile(r"\.(.+\.)?lock")
TEMPORARY = re.compile(r"\.(last\.pt|best\.pt|history\.jsonl|[^.].*\.json|\..+\.\d+\.state)\.tmp")
#: What a training says that was asked to stop within or after an epoch.
SAVED = re.compile(r"is saved after (?:step (\d+) of )?epoch (\d+)")
#: Fields that tell when, for how long and by which checkout something was made.
APART = {
    "seconds",
    "stage_seconds",
    "images_per_second",
    "sessions",
    "started",
    "created",
    "software",
}

#: (epochs, steps) or (stages, batches) that are done, by run and evaluation.
Position = Mapping[str, tuple[int, int]]
FINISHED = (10**9, 0)


@dataclass(frozen=True, kw_only=True)
class Remains:
    """What a directory holds: `contents` by path, how far each work is, and what is `torn`.

    `leftovers` are the locks, states and temporary files; `num_read` files were whole.
    """

    contents: dict[str, Any]
    position: Position
    leftovers: list[str]
    torn: list[str]
    num_read: int

    @property
    def num_records(self) -> int:
        """The number of records."""
        return sum(place == FINISHED for place in self.position.values())


def look(directory: Path) -> Remains:
    """Read everything below a directory that nobody is writing to."""
    contents: dict[str, Any] = {}
    position: dict[str, tuple[int, int]] = {}
    leftovers: list[str] = []
    torn: list[str] = []
    num_read = 0
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = str(path.relative_to(directory))
        if path.name.startswith("."):
            leftovers.append(name)
        if LOCK.fullmatch(path.name) or TEMPORARY.fullmatch(path.name):
            continue
        try:
            content = read(path)
        except (AdrbenchError, OSError, ValueError, LookupError) as error:
            torn.append(f"{name} cannot be read: {error}")
            continue
        num_read += 1
        if name not in leftovers:
            contents[name] = content
        for work, place in locate(path, content):
            position[work] = max(place, position.get(work, (0, 0)))
    return Remains(
        contents=contents, position=position, leftovers=leftovers, torn=torn, num_read=num_read
    )


def read(path: Path) -> Any:
    """Return what a file holds; AdrbenchError or ValueError unless it is whole."""
    if path.suffix == ".pt":
        return checkpoint.load(path)
    if path.suffix == SUFFIX:
        return read_state(path)
    if path.name == "config.json":
        return TrainConfig.from_json(json.loads(path.read_bytes()))
    if path.name == "history.jsonl":
        text = path.read_text("utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line does not end")
        return [json.loads(line) for line in text.splitlines()]
    return read_record(path)


def read_state(path: Path) -> Progress:
    """Return the progress of an evaluation, read as that evaluation would."""
    held = json.loads(path.read_bytes())["state"]
    progress_store = ProgressFiles(
        record=path.with_name(f"{stem_of(path)}.json"),
        fingerprint=held["fingerprint"],
        n=held["n"],
        rank=0,
    )
    return combine([progress_store.read(file) for file in progress_store.files()])


def stem_of(state: Path) -> str:
    """Return the name of the record, without .json, that a state is beside."""
    return state.name.removeprefix(".").rsplit(".", 2)[0]


def locate(path: Path, content: Any) -> list[tuple[str, tuple[int, int]]]:
    """Return how far which work is as one of its files says, where that says so."""
    if isinstance(content, Progress):
        return [(stem_of(path), (len(content.stages), len(content.done)))]
    if isinstance(content, Checkpoint):
        training = content.training
        if training is None:
            return []
        return [(content.run, (len(training["history"]), len(training["losses"])))]
    return [] if isinstance(content, list | TrainConfig) else [(path.stem, FINISHED)]


def find_loss(before: Position, after: Position) -> str | None:
    """Return which work is less far than it was, in words, or None."""
    for name, place in before.items():
        now = after.get(name, (0, 0))
        if now < place:
            return f"saved work is lost: {name} is at {now} and was at {place}"
    return None


def find_untruth(words: str, position: Position) -> str | None:
    """Return how the last words of a training contradict what it has saved, or None."""
    claimed = SAVED.search(words)
    if claimed is None:
        return None
    step, epoch = int(claimed[1] or 0), int(claimed[2])
    place = (epoch - 1, step) if step else (epoch, 0)
    if place in position.values():
        return None
    return f"it said that it {claimed[0]}, but it is at {position}"


def compare(ours: Remains, theirs: Remains) -> list[str]:
    """Return what is left over, and what differs between two directories of finished work."""
    wrong = [f"{name} is left over" for name in (*ours.leftovers, *theirs.leftovers)]
    difference = find_difference(ours.contents, theirs.contents)
    return [*wrong, f"the results differ: {difference}"] if difference else wrong


def find_difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Return the first place where two contents differ but for `APART`, or None.

    Tensors are compared bit by bit, numbers with their types.
    """
    if is_dataclass(ours) and type(ours) is type(theirs):
        names = ours.__dataclass_fields__
        ours, theirs = ({name: getattr(one, name) for name in names} for one in (ours, theirs))
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        ours, theirs = (
            {key: item for key, item in one.items() if key not in APART} for one in (ours, theirs)
        )
        if ours.keys() != theirs.keys():
            return f"{place} has {sorted(map(str, ours.keys() ^ theirs.keys()))} on one side only"
        pairs = [(key, ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list | tuple) and type(ours) is type(theirs):
        if len(ours) != len(theirs):
            return f"{place} has {len(ours)} entries, not {len(theirs)}"
        pairs = list(zip(range(len(ours)), ours, theirs, strict=True))
    else:
        is_same = type(ours) is type(theirs) and as_bits(ours) == as_bits(theirs)
        return None if is_same else f"{place} is {shorten(ours)}, not {shorten(theirs)}"
    found = (find_difference(one, other, f"{place}/{key}") for key, one, other in pairs)
    return next((difference for difference in found if difference), None)


def as_bits(value: Any) -> Any:
    """Return a tensor as its type, shape and bytes, anything else as it is written."""
    if not isinstance(value, torch.Tensor):
        return repr(value)
    flat = value.detach().contiguous().reshape(-1)
    return value.dtype, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()


def shorten(value: Any) -> str:
    """Return a value in few words."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
