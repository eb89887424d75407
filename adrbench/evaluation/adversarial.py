"""The adversarial examples of an evaluation: which one is kept for each image, and its file."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import RecordError, UsageError, one_line
from adrbench.evaluation.batch_files import OVERHEAD, check_indices
from adrbench.evaluation.judge import is_within
from adrbench.runtime.files import check_replaceable, write_atomically
from adrbench.runtime.npz import Header, UnexpectedArrayError, open_npz

#: What stands for an image: an example on which the attack succeeded; an example on which it did
#: not; or the image itself, where the attack returns it instead of a failed example.
SUCCESS, FAILURE, CLEAN = "success", "failure", "clean"
KINDS = (CLEAN, FAILURE, SUCCESS)
SUFFIXES = (".npz", ".pt")
#: What the names of a kind and a stage may take in a file, in bytes.
NAMES_BYTES = 4096


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
class ExampleForm:
    """What the examples of a batch of at most `batch_size` of the `images` can be."""

    images: Images
    threat: ThreatModel
    batch_size: int

    @property
    def largest(self) -> dict[str, Header]:
        """The types and shapes of the tensors of the largest batch."""
        rows = min(self.batch_size, len(self.images))
        return {
            "indices": Header((rows,), np.dtype(np.int64)),
            "x_adv": Header((rows, *self.images.pixels.shape[1:]), np.dtype(np.float32)),
            "success": Header((rows,), np.dtype(np.bool_)),
            "loss": Header((rows,), np.dtype(np.float32)),
        }

    def make(self, tensors: Mapping[str, Tensor]) -> BatchExamples:
        """Return examples; ValueError for others than those of different images in the ball."""
        examples = BatchExamples(**tensors)
        indices, x_adv = examples.indices, examples.x_adv
        lengths = {len(tensor) for tensor in tensors.values()}
        if len(lengths) > 1:
            raise ValueError(f"its arrays have {' and '.join(map(str, sorted(lengths)))} rows")
        check_indices(indices, len(self.images))
        x = to_float(self.images.pixels[indices])
        if not is_within(self.threat, x, x_adv).all():
            raise ValueError("some are outside the threat model")
        if examples.loss.isnan().any():
            raise ValueError("loss has an entry that is NaN")
        return examples


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
    x: Tensor,
    batches: Iterable[tuple[int, BatchExamples]],
    stage_names: tuple[str, ...],
    *,
    robust: Tensor,
) -> AdversarialExamples:
    """Return one example for each of the images `x` (n, C, H, W), `robust` (n,) or not.

    It is the example with which the suite succeeded, otherwise the one with the highest
    cross-entropy among those that the stages returned, otherwise the clean image.

    Raises:
        RecordError: when the examples contradict the outcomes, as in files that were edited.

    """
    x_adv = x.clone()
    kinds = torch.full((len(x),), KINDS.index(CLEAN), dtype=torch.uint8)
    stages = torch.zeros(len(x), dtype=torch.int16)
    highest = torch.full((len(x),), -torch.inf)
    for stage, examples in batches:
        if stage >= len(stage_names):
            raise _contradiction()
        is_better = examples.success | (examples.loss > highest[examples.indices])
        chosen = examples.indices[is_better]
        x_adv[chosen] = examples.x_adv[is_better]
        success = examples.success[is_better].to(torch.uint8)
        kinds[chosen] = KINDS.index(FAILURE) + success
        stages[chosen] = stage
        highest[chosen] = examples.loss[is_better]
    if not torch.equal(kinds == KINDS.index(SUCCESS), ~robust):
        raise _contradiction()
    return AdversarialExamples(x_adv=x_adv, kinds=kinds, stages=stages, stage_names=stage_names)


def _contradiction() -> RecordError:
    return RecordError(
        "the saved adversarial examples contradict the outcomes of the attacks: start the "
        "evaluation over."
    )


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


def read_examples(path: Path, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays that `write_examples` wrote to `path` for images of a shape (n, C, H, W).

    They are all but `kind` and `stage`; from a `.pt` file only `x_adv`.

    Raises:
        RecordError: when the file cannot be read, or contains other arrays.

    """
    n = shape[:1]
    expected = {
        "x_adv": Header(shape, np.dtype(np.float32)),
        "y": Header(n, np.dtype(np.int64)),
        "index": Header(n, np.dtype(np.int64)),
        "clean": Header(n, np.dtype(np.bool_)),
        "robust": Header(n, np.dtype(np.bool_)),
    }
    limit = sum(header.num_bytes for header in expected.values()) + n[0] * NAMES_BYTES + OVERHEAD
    try:
        if path.suffix == ".pt":
            return {"x_adv": read_torch_file(path).content.numpy()}
        with open_npz(path, limit) as archive:
            return archive.read_all(expected)
    except UnexpectedArrayError as error:
        raise RecordError(one_line(error)) from error
    except Exception as error:  # zipfile, numpy and torch may raise anything for a damaged file
        raise RecordError("it cannot be read") from error
