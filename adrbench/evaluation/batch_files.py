"""What an evaluation keeps of each batch of a stage until it is finished, in memory or in files.

It is saved batch by batch, so an interrupted evaluation keeps that of its finished batches.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from adrbench.errors import RecordError, one_line
from adrbench.runtime.files import matching_files, remove_file, write_atomically
from adrbench.runtime.npz import Arrays, Header, open_npz

#: A dataclass whose fields are tensors on the CPU.
Content = TypeVar("Content")
Content_co = TypeVar("Content_co", covariant=True)
#: The type of fingerprints in files: SHA-256 in hexadecimal digits, or shorter texts.
FINGERPRINT = np.dtype("U64")
#: What an archive may take beyond its arrays, in bytes.
OVERHEAD = 2**16


class BatchForm(Protocol[Content_co]):
    """What the content of a batch of an evaluation can be."""

    @property
    def largest(self) -> Mapping[str, Header]:
        """The types and shapes of its tensors in the largest batch; others have fewer rows."""

    def make(self, tensors: Mapping[str, Tensor]) -> Content_co:
        """Return the content that consists of these tensors; ValueError if it is impossible."""


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

    Each has the tensors of an object of the given `form` and the `fingerprint` of the evaluation. A
    file of another one is an error, whose text names `what` the files have and ends with the
    `remedy`.
    """

    stem: Path
    form: BatchForm[Content]
    fingerprint: str
    what: str
    remedy: str = "start the evaluation over"

    def save(self, stage: int, batch: int, content: Content) -> None:
        """Write the file of a batch atomically."""
        buffer = io.BytesIO()
        arrays = {name: value.numpy() for name, value in vars(content).items()}
        np.savez(buffer, fingerprint=np.array(self.fingerprint, FINGERPRINT), **arrays)
        write_atomically(self.path_of(stage, batch), buffer.getvalue())

    def load(self) -> Iterator[tuple[int, Content]]:
        """Yield the content of every batch with its stage, stages in order.

        Raises:
            RecordError: when a file is damaged or belongs to another evaluation.

        """
        for (stage, _), path in sorted(self.find().items()):
            yield stage, self._read(path)

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
            remove_file(path)

    def remove_foreign(self) -> None:
        """Remove the files that are damaged or belong to another evaluation."""
        for path in self.find().values():
            try:
                self._read(path)
            except RecordError:
                remove_file(path)

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

    def _read(self, path: Path) -> Content:
        """Return the content of a file of this evaluation.

        Raises:
            RecordError: when the file is damaged or belongs to another evaluation.

        """
        largest = self.form.largest
        limit = OVERHEAD + sum(header.num_bytes for header in largest.values())
        try:
            with open_npz(path, limit) as archive:
                is_own = self._is_own(archive)
                arrays = archive.read_all(largest) if is_own else {}
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            content = self.form.make(tensors) if is_own else None
        except Exception as error:  # zipfile and numpy may raise anything for a damaged file
            raise RecordError(
                f"the {self.what} in {path} are damaged ({one_line(error)}): {self.remedy}."
            ) from error
        if content is None:
            raise RecordError(
                f"the {self.what} in {path} belong to another evaluation: {self.remedy}."
            )
        return content

    def _is_own(self, archive: Arrays) -> bool:
        """Return whether an archive has the fingerprint of this evaluation."""
        if "fingerprint" not in archive.members:
            return False
        header = archive.read_header("fingerprint")
        if header.dtype.kind != "U" or header.shape or header.num_bytes > FINGERPRINT.itemsize:
            return False
        return str(archive.read("fingerprint")) == self.fingerprint


def check_indices(indices: Tensor, n: int) -> None:
    """Raise ValueError unless `indices` (K,) are positions of K of n images."""
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n:
        raise ValueError(f"indices has an entry that is not from 0 to {n - 1}")
    if len(set(indices.tolist())) < len(indices):
        raise ValueError("indices has an entry twice")
