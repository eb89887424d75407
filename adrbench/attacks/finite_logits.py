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

    It is for attacks on the images `x` (N, C, H, W) with labels `y` (N,), which pass all of them,
    in order, or some. A row of all has the label of its position; one of some has that of the
    image that its input is nearest to. That may be another image's if a perturbation is longer
    than half the distance between the two, and the row may then predict its own label.

    Each pass waits once for the device, as the attacks themselves do to read its predictions.
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
        wrong = -F.one_hot(self._find_labels(x.detach()), logits.shape[1]).to(logits)
        # The gradient of a row that is masked is zero times infinity where its own is infinite.
        kept = finite.nonzero().squeeze(1)
        replaced = wrong + 0 * x.flatten(1).sum(1, keepdim=True)
        return replaced.index_put((kept,), self.model(x[kept])) if len(kept) else replaced

    def _find_labels(self, x: Tensor) -> Tensor:
        if len(x) == len(self.x):
            return self.y
        return self.y[torch.cdist(x.flatten(1), self.x.flatten(1)).argmin(1)]
