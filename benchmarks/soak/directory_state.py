"""What runs and evaluations have written to a directory, read with the package's own readers."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adrbench.checkpoints import format as checkpoint
from adrbench.checkpoints.format import Checkpoint
from adrbench.checkpoints.settings_file import RUN_ID
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError
from adrbench.evaluation import progress
from adrbench.evaluation.progress import ProgressFiles
from adrbench.results.records import AttackRecord, TrainRecord, read_record

#: Files that a kill may leave and that nothing reads: locks, and files being written.
UNREAD = re.compile(r"\.(.+\.)?lock|\..+\.tmp")

#: (epochs, steps) of each run and (stages, batches) of each evaluation done so far, by name.
Progress = Mapping[str, tuple[int, int]]
FINISHED = (10**9, 0)


@dataclass(kw_only=True)
class DirectoryState:
    """Contents by path, progress by run or evaluation, leftovers, and unreadable files.

    `leftovers` are the paths of locks, saved progress and temporary files; `num_read` files were
    complete.
    """

    contents: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    num_read: int = 0

    @property
    def num_records(self) -> int:
        """The number of records."""
        return sum(position == FINISHED for position in self.progress.values())


def read_directory(directory: Path) -> DirectoryState:
    """Read all files below a directory to which no process is writing."""
    state = DirectoryState()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = str(path.relative_to(directory))
        is_leftover = path.name.startswith(".")
        if is_leftover:
            state.leftovers.append(name)
        if UNREAD.fullmatch(path.name):
            continue
        try:
            content = read_file(path)
        except (AdrbenchError, OSError, ValueError, LookupError) as error:
            state.unreadable.append(f"{name} cannot be read: {error}")
            continue
        state.num_read += 1
        if not is_leftover:
            state.contents[name] = content
        for work, position in find_positions(path, content):
            state.progress[work] = max(position, state.progress.get(work, (0, 0)))
    return state


def read_file(path: Path) -> Any:
    """Return the content of a file; raise AdrbenchError or ValueError unless it is complete."""
    if path.suffix == ".pt":
        return checkpoint.load(path)
    if path.suffix == progress.SUFFIX:
        return read_saved_progress(path)
    if path.name == "config.json":
        stored = json.loads(path.read_bytes())
        del stored[RUN_ID]
        return TrainConfig.from_json(stored)
    if path.name == "history.jsonl":
        text = path.read_text("utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line has no end")
        return [json.loads(line) for line in text.splitlines()]
    return read_record(path)


def read_saved_progress(path: Path) -> progress.Progress:
    """Return the saved progress of an evaluation, read as that evaluation would read it."""
    saved = json.loads(path.read_bytes())["state"]
    files = ProgressFiles(
        stem=path.with_name(f".{record_name(path)}"),
        fingerprint=saved["fingerprint"],
        n=saved["n"],
        rank=0,
    )
    return progress.combine([files.read(file) for file in files.files()])


def record_name(path: Path) -> str:
    """Return the name, without .json, of the record that saved progress belongs to."""
    return path.name.removeprefix(".").rsplit(".", 2)[0]


def find_positions(path: Path, content: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the progress of the run or evaluation that a file shows, if it shows any."""
    if isinstance(content, progress.Progress):
        yield record_name(path), (len(content.stages), len(content.done))
    elif isinstance(content, Checkpoint) and content.training is not None:
        training = content.training
        yield content.run, (len(training["history"]), len(training["losses"]))
    elif isinstance(content, AttackRecord | TrainRecord):
        yield path.stem, FINISHED
