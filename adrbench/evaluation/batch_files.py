"""What an evaluation keeps of each batch of a stage until it is finished, in memory or in files.

It is saved batch by batch, so an interrupted evaluation keeps that of its finished batches.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from adrbench.errors import RecordError
from adrbench.runtime.files import matching_files, write_atomically
from adrbench.runtime.npz import open_npz

#: A dataclass whose fields are tensors on the CPU.
Content = TypeVar("Content")


class BatchStore(Protocol[Content]):
    """Storage for the contents of the batches of one evaluation; its clean pass is stage 0."""

    def save(self, stage: int, batch: int, content: Content) -> None:
        """Save the content of a batch."""

    def load(self) -> Iterator[tuple[int, Content]]:
        """Yield the content of every saved batch with its stage, stages in order."""

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the content of a batch was saved."""


@dataclass(frozen=True)
class BatchesInMemory(Generic[Content]):
    """A store in memory."""

    batches: dict[tuple[int, int], Content] = field(default_factory=dict)

    def save(self, stage: int, batch: int, content: Content) -> None:
        """Keep the content of a batch."""
        self.batches[stage, batch] = content

    def load(self) -> Iterator[tuple[int, Content]]:
        """Yield the content of every batch with its stage, stages in order."""
        for stage, batch in sorted(self.batches):
            yield stage, self.batches[stage, batch]

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the content of a batch is kept."""
        return (stage, batch) in self.batches


@dataclass(frozen=True, kw_only=True)
class BatchFiles(Generic[Content]):
    """Files `<stem>.<stage>-<batch>.npz`, which the ranks that share an evaluation write.

    Each has the tensors of an object of class `content` and the `fingerprint` of the evaluation. A
    file of another one is an error, whose text names `what` the files have and ends with the
    `remedy`.
    """

    stem: Path
    content: type[Content]
    fingerprint: str
    what: str
    remedy: str = "start the evaluation over"

    def save(self, stage: int, batch: int, content: Content) -> None:
        """Write the file of a batch atomically."""
        buffer = io.BytesIO()
        arrays = {name: value.numpy() for name, value in vars(content).items()}
        np.savez(buffer, fingerprint=np.array(self.fingerprint), **arrays)
        write_atomically(self.path_of(stage, batch), buffer.getvalue())

    def load(self) -> Iterator[tuple[int, Content]]:
        """Yield the content of every batch with its stage, stages in order.

        Raises:
            RecordError: when a file is damaged or belongs to another evaluation.

        """
        kind: Any = self.content
        names = [one.name for one in fields(kind)]
        for (stage, _), path in sorted(self.find().items()):
            yield stage, self.content(**self._read(path, names))

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the file of a batch was written.

        Raises:
            RecordError: when it is damaged or belongs to another evaluation.

        """
        path = self.path_of(stage, batch)
        if not path.exists():
            return False
        self._read(path)
        return True

    def remove(self) -> None:
        """Remove the files of all ranks, whatever evaluation they belong to."""
        for path in self.find().values():
            path.unlink(missing_ok=True)

    def remove_foreign(self) -> None:
        """Remove the files that are damaged or belong to another evaluation."""
        for path in self.find().values():
            try:
                self._read(path)
            except RecordError:
                path.unlink(missing_ok=True)

    def path_of(self, stage: int, batch: int) -> Path:
        """Return the path of the file of a batch."""
        return self.stem.with_name(f"{self.stem.name}.{stage}-{batch}.npz")

    def find(self) -> dict[tuple[int, int], Path]:
        """Return the existing files of all ranks by their stage and batch."""
        pattern = re.compile(re.escape(self.stem.name) + r"\.(\d+)-(\d+)\.npz")
        found = {}
        for path in matching_files(self.stem.parent, pattern):
            stage, batch = path.stem.rpartition(".")[2].split("-")
            found[int(stage), int(batch)] = path
        return found

    def _read(self, path: Path, names: Iterable[str] = ()) -> dict[str, Tensor]:
        """Return the tensors called `names` from a file of this evaluation.

        Raises:
            RecordError: when the file is damaged or belongs to another evaluation.

        """
        try:
            with open_npz(path) as arrays:
                fingerprint = str(arrays["fingerprint"]) if "fingerprint" in arrays else None
                tensors = {name: torch.from_numpy(arrays[name]) for name in names}
        except Exception as error:  # numpy may raise anything for a damaged file
            raise RecordError(f"the {self.what} in {path} are damaged: {self.remedy}.") from error
        if fingerprint != self.fingerprint:
            raise RecordError(
                f"the {self.what} in {path} belong to another evaluation: {self.remedy}."
            )
        return tensors
