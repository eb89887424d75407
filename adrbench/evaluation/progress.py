"""The progress of an evaluation, and the files that store it until the evaluation is finished.

An evaluation runs in batches. The images of a batch are determined by the survivors at the start of
its stage, so any rank can evaluate any batch, in any order, and again after an interruption.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from adrbench.errors import RecordError, argument
from adrbench.evaluation.identity import are_same_logits
from adrbench.results.records import (
    StageResult,
    pack_logits,
    pack_outcomes,
    unpack_logits,
    unpack_outcomes,
)
from adrbench.runtime.files import (
    MAX_JSON_BYTES,
    matching_files,
    read_limited,
    remove_file,
    write_atomically,
)
from adrbench.runtime.hashing import hash_json
from adrbench.runtime.typed_json import from_json, to_json

SCHEMA = 2
SUFFIX = ".state"


@dataclass(kw_only=True)
class Progress:
    """The state of an evaluation of n images; masks are (n,) booleans on the CPU.

    `stages` are the finished stages, the clean pass first, and `clean` the images it classified
    correctly, once it is finished. Of the current stage, `entered` are the images it attacks,
    `survivors` those of them that are robust so far, and `done` the indices of its finished
    batches, and `nonfinite` the images on which the model's logits were not finite; it has taken
    `stage_seconds`, and the whole evaluation `seconds`. `memory_format` is the name of that of the
    frozen model, "" before it is chosen. `unconfirmed` are images that an attack fooled in the
    arithmetic of its search but not in float32, of which `rechecked` were attacked again.
    `repeated` are images of batches in which passes were repeated in float32, because results of
    the search were not finite. `compiled` is whether passes were compiled in any session.
    """

    entered: Tensor
    survivors: Tensor
    clean: Tensor | None = None
    done: set[int] = field(default_factory=set)
    nonfinite: set[int] = field(default_factory=set)
    stages: list[StageResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stage_seconds: float = 0.0
    memory_format: str = ""
    unconfirmed: set[int] = field(default_factory=set)
    rechecked: int = 0
    repeated: set[int] = field(default_factory=set)
    compiled: bool = False

    @property
    def is_before_attacks(self) -> bool:
        """Whether the clean pass is finished and no batch of the first attack is."""
        return len(self.stages) == 1 and not self.done

    def describe(self, stage: str) -> str:
        """Return the progress in words; `stage` is the name of the current stage."""
        batches = f"after {len(self.done)} batch{'' if len(self.done) == 1 else 'es'} of {stage}"
        total = len(self.survivors)
        counts = [f"{done.survivors:,}/{total:,} after {done.name}" for done in self.stages]
        return f"{batches}; robust: {', '.join(counts)}" if counts else batches

    def check_batches(self, batches: Sequence[Tensor], stage: str) -> None:
        """Check that the finished batches are among those of the current stage.

        `batches` are the indices of the images of each. Every image of the others must still
        survive.

        Raises:
            RecordError: when they contradict each other, as in a file that was edited.

        """
        others = [images for index, images in enumerate(batches) if index not in self.done]
        if max(self.done, default=-1) >= len(batches) or any(
            not bool(self.survivors[images].all()) for images in others
        ):
            raise RecordError(
                f"the saved progress of {stage} contradicts its {len(batches)} batches: start the "
                "evaluation over."
            )

    def finish_stage(self, name: str) -> None:
        """Record the current stage as finished; its survivors enter the next one."""
        if self.clean is None:
            self.clean = self.survivors.clone()
        num_survivors = int(self.survivors.sum())
        self.stages.append(
            StageResult(name=name, survivors=num_survivors, seconds=self.stage_seconds)
        )
        self.entered = self.survivors.clone()
        self.done, self.nonfinite, self.stage_seconds = set(), set(), 0.0


def begin(n: int) -> Progress:
    """Return the progress of an evaluation of `n` images before its clean pass."""
    everything = torch.ones(n, dtype=torch.bool)
    return Progress(entered=everything, survivors=everything.clone())


def combine(parts: Sequence[Progress]) -> Progress:
    """Return the combined progress of several ranks, each with its share of the batches.

    A rank enters a stage when all ranks have finished the last one, so only the parts with the
    most finished stages count.
    """
    warnings = unique(text for part in parts for text in part.warnings)
    num_finished = max(len(part.stages) for part in parts)
    parts = [part for part in parts if len(part.stages) == num_finished]
    whole = parts[0]
    for part in parts[1:]:
        whole.survivors &= part.survivors
        whole.done |= part.done
        whole.nonfinite |= part.nonfinite
        whole.unconfirmed |= part.unconfirmed
        whole.repeated |= part.repeated
        whole.rechecked = max(whole.rechecked, part.rechecked)
        whole.compiled |= part.compiled
        whole.seconds = max(whole.seconds, part.seconds)
        whole.stage_seconds = max(whole.stage_seconds, part.stage_seconds)
    whole.warnings = warnings
    return whole


def unique(texts: Iterable[str]) -> list[str]:
    """Return each text once, in order of first occurrence."""
    return list(dict.fromkeys(texts))


class ProgressStore(Protocol):
    """Storage for the progress of an evaluation."""

    def load(self) -> Progress | None:
        """Return the saved progress, or None."""

    def save(self, progress: Progress) -> None:
        """Save the progress of this rank."""


class NoProgressStore:
    """A store that does not save anything."""

    def load(self) -> Progress | None:
        """Return None."""
        return None

    def save(self, progress: Progress) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class _State:
    """The content of a file: per-example outcomes as packed bits, and what is evaluated how.

    The field names are the keys on disk; `standing` and `form` are the `survivors` and the
    `memory_format` of a `Progress`.
    """

    fingerprint: str
    n: int
    entered: str
    standing: str
    clean: str | None
    done: tuple[int, ...]
    stages: tuple[StageResult, ...]
    warnings: tuple[str, ...]
    seconds: float
    stage_seconds: float
    form: str
    clean_logits: str | None = None
    nonfinite: tuple[int, ...] = ()
    unconfirmed: tuple[int, ...] = ()
    rechecked: int = 0
    repeated: tuple[int, ...] = ()
    compiled: bool = False
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class ProgressFiles:
    """Files `<stem>.<rank>.state`, one per rank.

    `fingerprint` covers everything that the outcomes of a batch depend on except the code of the
    model, which is identified by its `clean_logits` on the first images (None: not compared). A
    file of another evaluation is an error, whose text ends with the `remedy`.
    """

    stem: Path
    fingerprint: str
    n: int
    rank: int
    clean_logits: Tensor | None = None
    remedy: str = "start the evaluation over"

    def load(self) -> Progress | None:
        """Return the combined progress of all ranks of an interrupted evaluation, or None.

        Raises:
            RecordError: when a file is damaged or belongs to another evaluation.

        """
        parts = [self.read(path) for path in self.files()]
        return combine(parts) if parts else None

    def save(self, progress: Progress) -> None:
        """Write the file of this rank atomically."""
        logits = self.clean_logits
        state = _State(
            fingerprint=self.fingerprint,
            n=self.n,
            entered=_pack(progress.entered),
            standing=_pack(progress.survivors),
            clean=None if progress.clean is None else _pack(progress.clean),
            done=tuple(sorted(progress.done)),
            stages=tuple(progress.stages),
            warnings=tuple(progress.warnings),
            seconds=progress.seconds,
            stage_seconds=progress.stage_seconds,
            form=progress.memory_format,
            clean_logits=None if logits is None else pack_logits(logits.numpy()),
            nonfinite=tuple(sorted(progress.nonfinite)),
            unconfirmed=tuple(sorted(progress.unconfirmed)),
            rechecked=progress.rechecked,
            repeated=tuple(sorted(progress.repeated)),
            compiled=progress.compiled,
        )
        data = to_json(state)
        content = json.dumps({"sha256": hash_json(data), "state": data})
        write_atomically(self.own_file, content.encode())

    @property
    def own_file(self) -> Path:
        """The path of the file of this rank."""
        return self.stem.with_name(f"{self.stem.name}.{self.rank}{SUFFIX}")

    def files(self) -> list[Path]:
        """Return the existing files of all ranks."""
        pattern = re.compile(rf"{re.escape(self.stem.name)}\.\d+{re.escape(SUFFIX)}")
        return sorted(matching_files(self.stem.parent, pattern))

    def remove(self) -> None:
        """Remove the files of all ranks."""
        for path in self.files():
            remove_file(path)

    def read(self, path: Path) -> Progress:
        """Return the progress that one rank saved.

        Raises:
            RecordError: when the file is damaged or belongs to another evaluation.

        """
        try:
            state = _read_state(path)
            is_same = (state.fingerprint, state.n) == (self.fingerprint, self.n)
            if is_same and self.clean_logits is not None and state.clean_logits is not None:
                saved = unpack_logits(state.clean_logits, self.clean_logits.shape[1])
                is_same = are_same_logits(torch.from_numpy(saved), self.clean_logits)
            progress = _to_progress(state) if is_same else None
        except (OSError, ValueError, LookupError, TypeError, RecursionError, RecordError) as error:
            is_incomplete = isinstance(error, LookupError | TypeError)
            reason = "it is incomplete" if is_incomplete else str(error).rstrip(".")
            raise RecordError(
                f"the progress in {path} is damaged ({reason}): {self.remedy}."
            ) from error
        if progress is None:
            raise RecordError(
                f"{path} contains the progress of another evaluation, or of one with other "
                f"settings such as {argument('batch_size')} or {argument('precision')}: resume it "
                "with those, or "
                f"{self.remedy}."
            )
        return progress


def _read_state(path: Path) -> _State:
    """Return the content of a file; ValueError and others where it is damaged."""
    content: Any = json.loads(read_limited(path, MAX_JSON_BYTES))
    data = content["state"]
    if content["sha256"] != hash_json(data):
        raise ValueError("its checksum is wrong")
    state = from_json(_State, data)
    if not 1 <= state.schema <= SCHEMA:
        raise ValueError(f"its schema is {state.schema}, but this version reads up to {SCHEMA}")
    return state


def _to_progress(state: _State) -> Progress:
    """Return the progress in a file; ValueError where it contradicts itself."""
    progress = Progress(
        entered=_unpack(state.entered, state.n),
        survivors=_unpack(state.standing, state.n),
        clean=None if state.clean is None else _unpack(state.clean, state.n),
        done=set(state.done),
        stages=list(state.stages),
        warnings=list(state.warnings),
        seconds=state.seconds,
        stage_seconds=state.stage_seconds,
        memory_format=state.form,
        nonfinite=set(state.nonfinite),
        unconfirmed=set(state.unconfirmed),
        rechecked=state.rechecked,
        repeated=set(state.repeated),
        compiled=state.compiled,
    )
    _check_numbers(state)
    clean = progress.entered if progress.clean is None else progress.clean
    num_entered = state.stages[-1].survivors if state.stages else state.n
    if (
        bool((progress.survivors & ~progress.entered).any())
        or bool((progress.entered & ~clean).any())
        or int(progress.entered.sum()) != num_entered
        or (progress.clean is None) != (not state.stages)
        or (state.stages and int(clean.sum()) != state.stages[0].survivors)
        or (not state.done and bool((progress.entered & ~progress.survivors).any()))
    ):
        raise ValueError("its outcomes contradict each other")
    return progress


def _check_numbers(state: _State) -> None:
    """Raise ValueError, naming the field, unless every number in a file is in its range."""
    counts = [state.n, *(stage.survivors for stage in state.stages)]
    if counts != sorted(counts, reverse=True) or counts[-1] < 0:
        raise ValueError("its stages have negative or increasing numbers of survivors")
    for name, indices, end in (
        ("done", state.done, counts[-1]),  # a batch has an image at least
        ("nonfinite", state.nonfinite, state.n),
        ("unconfirmed", state.unconfirmed, state.n),
        ("repeated", state.repeated, state.n),
    ):
        if len(set(indices)) != len(indices):
            raise ValueError(f"its {name} has an entry twice")
        if any(not 0 <= index < end for index in indices):
            raise ValueError(f"its {name} has an entry that is not from 0 to {end - 1}")
    if not 0 <= state.rechecked <= len(state.unconfirmed):
        raise ValueError(f"its rechecked is not from 0 to {len(state.unconfirmed)}")
    seconds = (state.seconds, state.stage_seconds, *(stage.seconds for stage in state.stages))
    if any(not 0 <= one < math.inf for one in seconds):
        raise ValueError("its seconds are negative or not finite")


def _pack(mask: Tensor) -> str:
    return pack_outcomes(mask.numpy())


def _unpack(packed: str, n: int) -> Tensor:
    return torch.from_numpy(unpack_outcomes(packed, n))
