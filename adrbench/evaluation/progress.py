"""How far an evaluation is, and where that is kept while it goes on.

An evaluation works in batches. Which images make up a batch follows from who stood when its stage
began, so batches can be done by anyone, in any order, and again after a break.
"""

import glob
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from adrbench.errors import AdrbenchError, RecordError
from adrbench.results.records import Stage, pack_verdicts, unpack_verdicts
from adrbench.runtime.files import write_atomically
from adrbench.runtime.hashing import sha256_of_json
from adrbench.runtime.typed_json import from_json, to_json

logger = logging.getLogger(__name__)

SCHEMA = 1
SUFFIX = ".state"


@dataclass(kw_only=True)
class Progress:
    """The state of an evaluation.

    `stages` are the finished ones, the clean pass first, and `clean` (n,) its verdicts once it is.
    Of the next one, `entered` (n,) booleans are the images it began with, `standing` those it has
    not struck out yet, and `done` its finished batches, by number; it has taken `stage_seconds` so
    far, the evaluation `seconds`. `form` is the memory format of the frozen model, by name.
    """

    entered: Tensor
    standing: Tensor
    clean: Tensor | None = None
    done: set[int] = field(default_factory=set)
    stages: list[Stage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stage_seconds: float = 0.0
    form: str = ""

    def describe(self, stage: str) -> str:
        """Return in words how far it is; `stage` is the name of the one in hand."""
        batches = f"after {len(self.done)} batch{'' if len(self.done) == 1 else 'es'} of {stage}"
        robust = ", ".join(f"{done.survivors:,} after {done.name}" for done in self.stages)
        return f"{batches}; robust: {robust}" if robust else batches

    def finish_stage(self, name: str) -> None:
        """Let the next stage begin with what stands."""
        if self.clean is None:
            self.clean = self.standing.clone()
        survivors = int(self.standing.sum())
        self.stages.append(Stage(name=name, survivors=survivors, seconds=self.stage_seconds))
        self.entered = self.standing.clone()
        self.done, self.stage_seconds = set(), 0.0


def begin(n: int) -> Progress:
    """Return the progress of an evaluation of `n` images before its clean pass."""
    everything = torch.ones(n, dtype=torch.bool)
    return Progress(entered=everything, standing=everything.clone())


def combine(parts: Sequence[Progress]) -> Progress:
    """Return what several processes, each with its part of the batches, have done together.

    A stage begins when all know how the one before ended, so only those furthest on count.
    """
    furthest = max(len(part.stages) for part in parts)
    parts = [part for part in parts if len(part.stages) == furthest]
    whole = parts[0]
    for part in parts[1:]:
        whole.standing &= part.standing
        whole.done |= part.done
        whole.seconds = max(whole.seconds, part.seconds)
        whole.stage_seconds = max(whole.stage_seconds, part.stage_seconds)
    whole.warnings = unique(text for part in parts for text in part.warnings)
    return whole


def unique(texts: Iterable[str]) -> list[str]:
    """Return every text once, in the order in which they came first."""
    return list(dict.fromkeys(texts))


class ProgressStore(Protocol):
    """Where the progress of an evaluation is kept."""

    def load(self) -> Progress | None:
        """Return what was kept, None for nothing."""

    def save(self, progress: Progress) -> None:
        """Keep it."""


class NoProgressStore:
    """Nowhere."""

    def load(self) -> Progress | None:
        """Return nothing."""
        return None

    def save(self, progress: Progress) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a file holds: verdicts as packed bits, and a fingerprint of what is evaluated how."""

    fingerprint: str
    n: int
    entered: str
    standing: str
    clean: str | None
    done: tuple[int, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    seconds: float
    stage_seconds: float
    form: str
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class ProgressFiles:
    """Files beside the record to come, one per process.

    `fingerprint` is of all that the verdicts of a batch depend on; a state of another one, or a
    damaged one, is not used, with a warning.
    """

    record: Path
    fingerprint: str
    n: int
    rank: int

    def load(self) -> Progress | None:
        """Return what all processes of an earlier evaluation have done together."""
        parts = []
        for path in self.files():
            try:
                parts.append(self.read(path))
            except AdrbenchError as error:
                logger.warning(f"{path} is not used: {error}.")
        return combine(parts) if parts else None

    def save(self, progress: Progress) -> None:
        """Write this process's file, by rename."""
        state = _State(
            fingerprint=self.fingerprint,
            n=self.n,
            entered=_pack(progress.entered),
            standing=_pack(progress.standing),
            clean=None if progress.clean is None else _pack(progress.clean),
            done=tuple(sorted(progress.done)),
            stages=tuple(progress.stages),
            warnings=tuple(progress.warnings),
            seconds=progress.seconds,
            stage_seconds=progress.stage_seconds,
            form=progress.form,
        )
        data = to_json(state)
        content = json.dumps({"sha256": sha256_of_json(data), "state": data})
        name = f".{self.record.stem}.{self.rank}{SUFFIX}"
        write_atomically(self.record.with_name(name), content.encode())

    def files(self) -> list[Path]:
        """Return the files there are, of all processes."""
        pattern = f".{glob.escape(self.record.stem)}.*{SUFFIX}"
        return sorted(self.record.parent.glob(pattern))

    def remove(self) -> None:
        """Remove the files there are."""
        for path in self.files():
            path.unlink(missing_ok=True)

    def read(self, path: Path) -> Progress:
        """Return what one process has saved; RecordError for a file that is not used."""
        try:
            held: Any = json.loads(path.read_bytes())
            data = held["state"]
            if held["sha256"] != sha256_of_json(data):
                raise RecordError("its checksum is wrong")
            state = from_json(_State, data)
            if (state.schema, state.fingerprint, state.n) != (SCHEMA, self.fingerprint, self.n):
                raise RecordError("it is of another evaluation, or of other settings")
            return Progress(
                entered=_unpack(state.entered, self.n),
                standing=_unpack(state.standing, self.n),
                clean=None if state.clean is None else _unpack(state.clean, self.n),
                done=set(state.done),
                stages=list(state.stages),
                warnings=list(state.warnings),
                seconds=state.seconds,
                stage_seconds=state.stage_seconds,
                form=state.form,
            )
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RecordError(str(error).rstrip(".") or "it is damaged") from error


def _pack(mask: Tensor) -> str:
    return pack_verdicts(mask.numpy())


def _unpack(packed: str, n: int) -> Tensor:
    return torch.from_numpy(unpack_verdicts(packed, n))
