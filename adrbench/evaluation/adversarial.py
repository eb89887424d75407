"""The adversarial examples of an evaluation: which one is kept for each image, and its file."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.errors import RecordError, UsageError
from adrbench.runtime.files import check_replaceable, write_atomically
from adrbench.runtime.npz import open_npz

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
    check_replaceable(path)
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
            return {"x_adv": read_torch_file(path).content.numpy()}
        with open_npz(path) as arrays:
            return dict(arrays)
    except Exception as error:  # numpy and torch may raise anything for a damaged file
        raise RecordError("it cannot be read") from error
