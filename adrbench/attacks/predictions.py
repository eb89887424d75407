"""Correctness of predictions: an image with a non-finite logit is never correct."""

from torch import Tensor


def is_finite(logits: Tensor) -> Tensor:
    """Return which images have finite logits (N, num_classes), as (N,) booleans."""
    return logits.isfinite().all(1)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which images have finite logits (N, num_classes) that predict `labels`, both (N,).

    The argmax alone is not sufficient, since that of a row of NaN is class 0.
    """
    return is_finite(logits) & (logits.argmax(1) == labels)
