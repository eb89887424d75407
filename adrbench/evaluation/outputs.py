"""Outputs of a model, clean and under an attack that maximizes one loss, batch by batch.

`results/outputs.py` has the file of those on all images.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.attacks.suites import Suite
from adrbench.data import Images
from adrbench.errors import UsageError, argument
from adrbench.results.outputs import MAX_SIDE, Outputs, find_excess

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
    """
    joined = {
        name: torch.cat([getattr(one, name) for one in batches])
        for name in BatchOutputs.__dataclass_fields__
    }
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
