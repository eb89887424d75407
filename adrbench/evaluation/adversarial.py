"""The adversarial examples of an evaluation: which one is kept for each image, and where.

They are saved batch by batch, so an interrupted evaluation keeps those of its finished batches.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adrbench.errors import RecordError, UsageError
from adrbench.runtime.files import write_atomically

#: What stands for an image: an example on which the attack succeeded; an example on which it did
#: not; or the image itself, where the attack returns it instead of a failed example.
SUCCESS, FAILURE, CLEAN = "success", "failure", "clean"
KINDS = (CLEAN, FAILURE, SUCCESS)
SUFFIXES = (".npz", ".pt")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The examples from one batch of a stage; only those that differ from the clean image.

    `indices` (K,) are positions in the test set, `x_adv` (K, C, H, W) float32, `success` (K,)
    is whether the model misclassifies them, and `loss` (K,) is the cross-entropy there.
    """

    indices: Tensor
    x_adv: Tensor
    success: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """One example for each of n images.

    `x_adv` is (n, C, H, W) float32 in [0, 1]. `kinds` are indices into `KINDS` and `stages` into
    `stage_names`, of which 0 is the clean pass; both are (n,).
    """

    x_adv: Tensor
    kinds: Tensor
    stages: Tensor
    stage_names: tuple[str, ...]


class ExampleStore(Protocol):
    """Storage for the examples of the batches of an evaluation."""

    def save(self, stage: int, batch: int, piece: Piece) -> None:
        """Save the examples of a batch; the clean pass is stage 0."""

    def load(self) -> Iterator[tuple[int, Piece]]:
        """Yield every saved piece with its stage, stages in order."""

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the examples of a batch were saved."""


class NoExamples:
    """A store for evaluations whose examples are not kept."""

    def save(self, stage: int, batch: int, piece: Piece) -> None:
        """Do nothing."""

    def load(self) -> Iterator[tuple[int, Piece]]:
        """Yield nothing."""
        return iter(())

    def has(self, stage: int, batch: int) -> bool:
        """Return True: no examples are needed."""
        return True


@dataclass(frozen=True)
class ExamplesInMemory:
    """A store in memory."""

    pieces: dict[tuple[int, int], Piece] = field(default_factory=dict)

    def save(self, stage: int, batch: int, piece: Piece) -> None:
        """Keep a piece."""
        self.pieces[stage, batch] = piece

    def load(self) -> Iterator[tuple[int, Piece]]:
        """Yield every piece with its stage, stages in order."""
        for stage, batch in sorted(self.pieces):
            yield stage, self.pieces[stage, batch]

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the piece of a batch is kept."""
        return (stage, batch) in self.pieces


@dataclass(frozen=True)
class ExampleFiles:
    """Files `<stem>.<stage>-<batch>.npz`, which the ranks that share an evaluation write."""

    stem: Path

    def save(self, stage: int, batch: int, piece: Piece) -> None:
        """Write a piece by rename."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: value.numpy() for name, value in vars(piece).items()})
        write_atomically(self._path(stage, batch), buffer.getvalue())

    def load(self) -> Iterator[tuple[int, Piece]]:
        """Yield every piece with its stage, stages in order.

        Raises:
            RecordError: when a file is damaged.

        """
        for (stage, _), path in sorted(self._files().items()):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    names = Piece.__dataclass_fields__
                    piece = Piece(**{name: torch.from_numpy(arrays[name]) for name in names})
            except Exception as error:  # numpy may raise anything for a damaged file
                raise RecordError(
                    f"the adversarial examples in {path} are damaged: start the evaluation over."
                ) from error
            yield stage, piece

    def has(self, stage: int, batch: int) -> bool:
        """Return whether the piece of a batch was written."""
        return self._path(stage, batch).exists()

    def remove(self) -> None:
        """Remove the files of all ranks."""
        for path in self._files().values():
            path.unlink(missing_ok=True)

    def _path(self, stage: int, batch: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{stage}-{batch}.npz")

    def _files(self) -> dict[tuple[int, int], Path]:
        pattern = re.compile(re.escape(self.stem.name) + r"\.(\d+)-(\d+)\.npz")
        found = {}
        for path in self.stem.parent.iterdir() if self.stem.parent.is_dir() else ():
            if match := pattern.fullmatch(path.name):
                found[int(match[1]), int(match[2])] = path
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
) -> Piece:
    """Return the piece of a batch: the examples within the threat model that differ from `x`.

    All are tensors of the N images of the batch.
    """
    is_success = ~survives
    differs = (x_adv != x).flatten(1).any(1)
    kept = allowed & (differs | is_success)
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    return Piece(
        indices=indices[kept.cpu()].cpu(),
        x_adv=x_adv[kept].detach().float().cpu(),
        success=is_success[kept].cpu(),
        loss=loss[kept].detach().nan_to_num(nan=torch.inf).cpu(),
    )


def assemble(
    x: Tensor, pieces: Iterable[tuple[int, Piece]], stage_names: tuple[str, ...]
) -> Adversarial:
    """Return one example for each of the images `x` (n, C, H, W).

    It is the example with which the suite succeeded, otherwise the one with the highest
    cross-entropy among those that the stages returned, otherwise the clean image.
    """
    x_adv = x.clone()
    kinds = torch.full((len(x),), KINDS.index(CLEAN), dtype=torch.uint8)
    stages = torch.zeros(len(x), dtype=torch.int16)
    highest = torch.full((len(x),), -torch.inf)
    for stage, piece in pieces:
        is_better = piece.success | (piece.loss > highest[piece.indices])
        chosen = piece.indices[is_better]
        x_adv[chosen] = piece.x_adv[is_better]
        success = piece.success[is_better].to(torch.uint8)
        kinds[chosen] = KINDS.index(FAILURE) + success
        stages[chosen] = stage
        highest[chosen] = piece.loss[is_better]
    return Adversarial(x_adv=x_adv, kinds=kinds, stages=stages, stage_names=stage_names)


def check_suffix(path: Path) -> Path:
    """Return `path`; UsageError unless its name ends in one of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"adversarial examples cannot be saved as {path.name}: give a name that ends in "
            f"{' or '.join(SUFFIXES)}."
        )
    return path


def write_examples(
    path: Path, adversarial: Adversarial, *, labels: Tensor, clean: Tensor, robust: Tensor
) -> None:
    """Write the examples of n images to `path`, by rename.

    An `.npz` file holds `x_adv` (n, C, H, W) float32, and for each image its label `y`, its
    position `index` in the test set, the outcomes `clean` and `robust`, the `kind` of its example
    (one of `KINDS`) and the `stage` that produced it. A `.pt` file contains only the tensor
    `x_adv`, which is the format that RobustBench requires for external evaluations.
    """
    buffer = io.BytesIO()
    if check_suffix(path).suffix == ".pt":
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
