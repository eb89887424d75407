"""Outputs of a model, clean and under an attack that maximizes one loss, batch by batch.

`results/outputs.py` has the file of those on all images.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import RecordError, UsageError, argument
from adrbench.evaluation.batch_files import check_indices
from adrbench.evaluation.judge import ABSOLUTE_SLACK, is_within
from adrbench.results.outputs import MAX_SIDE, Outputs, find_excess
from adrbench.runtime.npz import Header

#: How many images are kept, the first ones, unless they are larger than MAX_SIDE.
NUM_KEPT_IMAGES = 8
#: Stages of a store: the batches of the evaluation's only attack, and those of the other images.
IN_EVALUATION, AFTERWARDS = 1, 2


@dataclass(frozen=True, kw_only=True)
class BatchOutputs:
    """The outputs on the K images of a batch, at positions `indices` in the test set.

    Logits are (K, num_classes) float32, `linf` and `l2` (K,). `images` and `adversarial_images` are
    those of the first `NUM_KEPT_IMAGES` of the test set that are in the batch.
    """

    indices: Tensor
    clean_logits: Tensor
    adversarial_logits: Tensor
    linf: Tensor
    l2: Tensor
    images: Tensor
    adversarial_images: Tensor

    @classmethod
    def of(
        cls,
        x: Tensor,
        x_adv: Tensor,
        *,
        indices: Tensor,
        allowed: Tensor,
        clean_logits: Tensor,
        logits: Tensor,
    ) -> "BatchOutputs":
        """Return those of images `x` attacked as `x_adv`, (K, C, H, W), with these logits.

        Where `x_adv` is not `allowed` by the threat model, (K,), the clean image replaces it.
        """
        x_adv = torch.where(allowed.view(-1, 1, 1, 1), x_adv, x)
        change = (x_adv - x).flatten(1)
        first = (indices < NUM_KEPT_IMAGES).to(x.device)
        tensors = {
            "clean_logits": clean_logits,
            "adversarial_logits": torch.where(allowed[:, None], logits, clean_logits),
            "linf": change.abs().amax(1),
            "l2": change.norm(dim=1),
            "images": x[first],
            "adversarial_images": x_adv[first],
        }
        return cls(
            indices=indices.cpu(),
            **{name: value.detach().float().cpu() for name, value in tensors.items()},
        )


@dataclass(frozen=True, kw_only=True)
class OutputForm:
    """What the outputs on a batch of at most `batch_size` of the `images` can be."""

    images: Images
    threat: ThreatModel
    num_classes: int
    batch_size: int

    @property
    def largest(self) -> dict[str, Header]:
        """The types and shapes of the tensors of the largest batch."""
        rows = min(self.batch_size, len(self.images))
        float32 = np.dtype(np.float32)
        images = Header((min(rows, NUM_KEPT_IMAGES), *self.images.pixels.shape[1:]), float32)
        return {
            "indices": Header((rows,), np.dtype(np.int64)),
            "clean_logits": Header((rows, self.num_classes), float32),
            "adversarial_logits": Header((rows, self.num_classes), float32),
            "linf": Header((rows,), float32),
            "l2": Header((rows,), float32),
            "images": images,
            "adversarial_images": images,
        }

    def make(self, tensors: Mapping[str, Tensor]) -> BatchOutputs:
        """Return outputs; ValueError for others than those on different images in the ball."""
        outputs = BatchOutputs(**tensors)
        check_indices(outputs.indices, len(self.images))
        kept = outputs.indices[outputs.indices < NUM_KEPT_IMAGES]
        for name, tensor in tensors.items():
            expected = len(kept if name.endswith("images") else outputs.indices)
            if len(tensor) != expected:
                raise ValueError(f"{name} has {len(tensor)} rows, not {expected}")
        for name in ("linf", "l2"):
            sizes = tensors[name]
            if not ((sizes >= 0) & sizes.isfinite()).all():
                raise ValueError(f"{name} has values that are not sizes of perturbations")
        x = to_float(self.images.pixels[kept])
        if not torch.allclose(outputs.images, x, rtol=0, atol=ABSOLUTE_SLACK):
            raise ValueError("images has other images than those of the evaluation")
        if not is_within(self.threat, x, outputs.adversarial_images).all():
            raise ValueError("some of adversarial_images are outside the threat model")
        return outputs


def check_offers_outputs(suite: Suite) -> None:
    """Raise UsageError unless the bound `suite` is one attack that maximizes one loss."""
    how = "give one that maximizes a loss to the end, such as pgd-20, cw or apgd-ce."
    if not suite.stages:
        raise UsageError(f"suite {suite.name} has no attack whose outputs could be kept: {how}")
    if len(suite.stages) > 1:
        raise UsageError(
            f"suite {suite.name} has no outputs to keep: each of its attacks ends with its first "
            "successes, and outputs on a mixture of those say nothing about calibration: "
            f"{how}"
        )
    if getattr(suite.stages[0], "maximize", None) is None:
        raise UsageError(
            f"suite {suite.name} has no outputs to keep: its attack does not maximize one loss to "
            "the end, and outputs on the images where it stops say nothing about "
            f"calibration: {how}"
        )


def check_fits(images: Images, num_classes: int) -> None:
    """Raise UsageError if the outputs on `images` are too large to keep."""
    kept = images.pixels[:NUM_KEPT_IMAGES]
    shape = (0,) if max(kept.shape[2:]) > MAX_SIDE else tuple(kept.shape)
    if excess := find_excess(len(images), num_classes, shape):
        raise UsageError(
            f"the outputs are too large to keep ({excess}): attack fewer images with "
            f"{argument('n')}, or keep none."
        )


def assemble_outputs(images: Images, batches: Sequence[BatchOutputs], attack: str) -> Outputs:
    """Return the outputs on all `images` from those of their `batches`.

    A ReliabilityWarning that names the `attack` counts logits that are not finite, which are kept.

    Raises:
        RecordError: when the batches are not those of all images, as in files that were edited.

    """
    joined = {
        name: torch.cat([getattr(one, name) for one in batches])
        for name in BatchOutputs.__dataclass_fields__
    }
    if not torch.equal(joined["indices"].sort().values, torch.arange(len(images))):
        raise RecordError(
            f"the saved outputs under {attack} are not those on {len(images):,} images, once each: "
            "start the evaluation over."
        )
    order = joined["indices"].argsort()
    # The kept images of each batch are in the order of its indices.
    first = joined["indices"][joined["indices"] < NUM_KEPT_IMAGES].argsort()
    arrays: dict[str, Any] = {
        name: value[first if name.endswith("images") else order].numpy()
        for name, value in joined.items()
        if name != "indices"
    }
    if max(images.pixels.shape[2:]) > MAX_SIDE:
        arrays |= {name: arrays[name][:0] for name in ("images", "adversarial_images")}
    num_nonfinite = int((~np.isfinite(arrays["adversarial_logits"]).all(1)).sum())
    if num_nonfinite:
        warnings.warn(
            ReliabilityWarning(
                f"the outputs under {attack} are not finite (NaN or infinity) on "
                f"{num_nonfinite:,} of {len(images):,} images: they are kept as they are."
            ),
            stacklevel=2,
        )
    return Outputs(labels=images.labels.cpu().numpy(), **arrays)
