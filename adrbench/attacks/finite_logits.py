"""Logits that are not finite, made visible to attacks that judge by argmax.

The argmax of a row of NaN is class 0, so the official attacks would take such an image of class 0
for one that is classified correctly, and return another one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.predictions import is_finite


class FiniteLogits(nn.Module):
    """`model` with finite logits: rows that are not become ones that predict a wrong class.

    It is for attacks on the images `x` (N, C, H, W) with labels `y` (N,). The label of a row is
    that of the image of `x` that its input is nearest to.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.model = model
        self.x = x
        self.y = y

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes); a row that was replaced has a gradient of zero."""
        logits: Tensor = self.model(x)
        finite = is_finite(logits.detach())
        if bool(finite.all()):
            return logits
        nearest = torch.cdist(x.detach().flatten(1), self.x.flatten(1)).argmin(1)
        wrong = -F.one_hot(self.y[nearest], logits.shape[1]).to(logits)
        # The gradient of a row that is masked is zero times infinity where its own is infinite.
        kept = finite.nonzero().squeeze(1)
        replaced = wrong + 0 * x.flatten(1).sum(1, keepdim=True)
        return replaced.index_put((kept,), self.model(x[kept])) if len(kept) else replaced
