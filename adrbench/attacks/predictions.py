"""When a model classifies an image correctly: a logit that is not finite is never a success."""

from torch import Tensor


def is_finite(logits: Tensor) -> Tensor:
    """Return which images have finite logits (N, num_classes), (N,)."""
    return logits.isfinite().all(1)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which images have finite logits (N, num_classes) that predict `labels`, both (N,).

    The argmax alone does not suffice: that of a row of NaN is class 0.
    """
    return is_finite(logits) & (logits.argmax(1) == labels)
