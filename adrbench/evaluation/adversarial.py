"""The adversarial examples of an evaluation: which one is kept for each image, and where.

They are saved batch by batch, so an interrupted evaluation keeps those of its finished batches.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from adrbench.errors import RecordError, UsageError
from adrbench.runtime.files import matching_files, write_atomically

#: What stands for an image: an example on which the attack succeeded; an example on which it did
#: not; or the image itself, where the attack returns it instead of a failed example.
SUCCESS, FAILURE, CLEAN = "success", "failure", "clean"
KINDS = (CLEAN, FAILURE, SUCCESS)
SUFFIXES = (".npz", ".pt")


@dataclass(frozen=True, kw_only=True)
class BatchExamples:
    """The examples from one batch of a stage; only those that differ from the clean image.

    `indices` (K,) are positions in the test set, `x_adv` (K, C, H, W) float32, `success` (K,)
    is whether the model misclassifies them, and `loss` (K,) is the cross-entropy there.
    """

    indices: Tensor
    x_adv: Tensor
    success: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialExamples:
    """One example for each of n images.

    `x_adv` is (n, C, H, W) float32 in [0, 1]. `kinds` are indices into `KINDS` and `stages` into
    `stage_names`, of which 0 is the clean pass; both are (n,).
    """

    x_adv: Tensor
    kinds: Tensor
    stages: Tensor
    stage_names: tuple[str, ...]


class ExampleStore(Protocol):
    """Storage for the examples of the batches of one evaluation; its clean pass is stage 0."""

    def save(self, stage: int, batch: int, examples: BatchExamples) -> None:
        """Save the examples of a batch."""

    def load(self) -> Iterator[tuple[int, BatchExamples]]:
        """Yield the examples of every saved batch with their stage, stages in order."""

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the examples of a batch were saved."""


@dataclass(frozen=True)
class ExamplesInMemory:
    """A store in memory."""

    batches: dict[tuple[int, int], BatchExamples] = field(default_factory=dict)

    def save(self, stage: int, batch: int, examples: BatchExamples) -> None:
        """Keep the examples of a batch."""
        self.batches[stage, batch] = examples

    def load(self) -> Iterator[tuple[int, BatchExamples]]:
        """Yield the examples of every batch with their stage, stages in order."""
        for stage, batch in sorted(self.batches):
            yield stage, self.batches[stage, batch]

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the examples of a batch are kept."""
        return (stage, batch) in self.batches


@dataclass(frozen=True, kw_only=True)
class ExampleFiles:
    """Files `<stem>.<stage>-<batch>.npz`, which the ranks that share an evaluation write.

    Each contains the `fingerprint` of the evaluation; a file of another one is an error, whose text
    ends with the `remedy`.
    """

    stem: Path
    fingerprint: str
    remedy: str = "start the evaluation over"

    def save(self, stage: int, batch: int, examples: BatchExamples) -> None:
        """Write the file of a batch atomically."""
        buffer = io.BytesIO()
        arrays = {name: value.numpy() for name, value in vars(examples).items()}
        np.savez(buffer, fingerprint=np.array(self.fingerprint), **arrays)
        write_atomically(self._path(stage, batch), buffer.getvalue())

    def load(self) -> Iterator[tuple[int, BatchExamples]]:
        """Yield the examples of every batch with their stage, stages in order.

        Raises:
            RecordError: when a file is damaged or belongs to another evaluation.

        """
        for (stage, _), path in sorted(self._files().items()):
            yield stage, BatchExamples(**self._read(path, BatchExamples.__dataclass_fields__))

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the file of a batch was written.

        Raises:
            RecordError: when it is damaged or belongs to another evaluation.

        """
        path = self._path(stage, batch)
        if not path.exists():
            return False
        self._read(path)
        return True

    def remove(self) -> None:
        """Remove the files of all ranks, whatever evaluation they belong to."""
        for path in self._files().values():
            path.unlink(missing_ok=True)

    def _read(self, path: Path, names: Iterable[str] = ()) -> dict[str, Tensor]:
        """Return the tensors called `names` from a file of this evaluation.

        Raises:
            RecordError: when the file is damaged or belongs to another evaluation.

        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fingerprint = str(arrays["fingerprint"]) if "fingerprint" in arrays else None
                tensors = {name: torch.from_numpy(arrays[name]) for name in names}
        except Exception as error:  # numpy may raise anything for a damaged file
            raise RecordError(
                f"the adversarial examples in {path} are damaged: {self.remedy}."
            ) from error
        if fingerprint != self.fingerprint:
            raise RecordError(
                f"the adversarial examples in {path} belong to another evaluation: {self.remedy}."
            )
        return tensors

    def _path(self, stage: int, batch: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{stage}-{batch}.npz")

    def _files(self) -> dict[tuple[int, int], Path]:
        pattern = re.compile(re.escape(self.stem.name) + r"\.(\d+)-(\d+)\.npz")
        found = {}
        for path in matching_files(self.stem.parent, pattern):
            stage, batch = path.stem.rpartition(".")[2].split("-")
            found[int(stage), int(batch)] = path
        return found


def select_examples(
    x: Tensor,
    x_adv: Tensor,
    *,
    indices: Tensor,
    allowed: Tensor,
    survives: Tensor,
    logits: Tensor,
    labels: Tensor,
) -> BatchExamples:
    """Return the examples of a batch that are within the threat model and differ from `x`.

    All are tensors of the N images of the batch.
    """
    is_success = ~survives
    differs = (x_adv != x).flatten(1).any(1)
    kept = allowed & (differs | is_success)
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    return BatchExamples(
        indices=indices[kept.cpu()].cpu(),
        x_adv=x_adv[kept].detach().float().cpu(),
        success=is_success[kept].cpu(),
        loss=loss[kept].detach().nan_to_num(nan=torch.inf).cpu(),
    )


def assemble(
    x: Tensor, batches: Iterable[tuple[int, BatchExamples]], stage_names: tuple[str, ...]
) -> AdversarialExamples:
    """Return one example for each of the images `x` (n, C, H, W).

    It is the example with which the suite succeeded, otherwise the one with the highest
    cross-entropy among those that the stages returned, otherwise the clean image.
    """
    x_adv = x.clone()
    kinds = torch.full((len(x),), KINDS.index(CLEAN), dtype=torch.uint8)
    stages = torch.zeros(len(x), dtype=torch.int16)
    highest = torch.full((len(x),), -torch.inf)
    for stage, examples in batches:
        is_better = examples.success | (examples.loss > highest[examples.indices])
        chosen = examples.indices[is_better]
        x_adv[chosen] = examples.x_adv[is_better]
        success = examples.success[is_better].to(torch.uint8)
        kinds[chosen] = KINDS.index(FAILURE) + success
        stages[chosen] = stage
        highest[chosen] = examples.loss[is_better]
    return AdversarialExamples(x_adv=x_adv, kinds=kinds, stages=stages, stage_names=stage_names)


def check_destination(path: Path) -> Path:
    """Return `path`; UsageError unless it can be that of a file of examples."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"adversarial examples cannot be saved as {path.name}: give a name that ends in "
            f"{' or '.join(SUFFIXES)}."
        )
    if path.is_dir():
        raise UsageError(
            f"adversarial examples cannot be saved as {path}, which is a directory: give the name "
            "of a file."
        )
    return path


def write_examples(
    path: Path, adversarial: AdversarialExamples, *, labels: Tensor, clean: Tensor, robust: Tensor
) -> None:
    """Write the examples of n images to `path`, by rename.

    An `.npz` file holds `x_adv` (n, C, H, W) float32, and for each image its label `y`, its
    position `index` in the test set, the outcomes `clean` and `robust`, the `kind` of its example
    (one of `KINDS`) and the `stage` that produced it. A `.pt` file contains only the tensor
    `x_adv`, which is the format that RobustBench requires for external evaluations.
    """
    buffer = io.BytesIO()
    if check_destination(path).suffix == ".pt":
        torch.save(adversarial.x_adv, buffer)
    else:
        np.savez(
            buffer,
            x_adv=adversarial.x_adv.numpy(),
            y=labels.cpu().numpy(),
            index=np.arange(len(labels)),
            clean=clean.numpy(),
            robust=robust.numpy(),
            kind=np.array(KINDS)[adversarial.kinds.numpy()],
            stage=np.array(adversarial.stage_names)[adversarial.stages.numpy()],
        )
    write_atomically(path, buffer.getvalue())


def read_examples(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `write_examples` wrote to `path`; only `x_adv` from a `.pt` file.

    Raises:
        RecordError: when the file cannot be read.

    """
    try:
        if path.suffix == ".pt":
            return {"x_adv": torch.load(path, weights_only=True, map_location="cpu").numpy()}
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # numpy and torch may raise anything for a damaged file
        raise RecordError("it cannot be read") from error
