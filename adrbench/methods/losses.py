"""Losses on probabilities, computed in at least float32 at any precision of the pass."""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities (N, C) in at least float32."""
    return F.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of `logits` (N, C) against probabilities (N, C)."""
    return -(targets * log_softmax(logits)).sum(1).mean()


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the batch mean of KL(p || q), both given as log-probabilities (N, C)."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
