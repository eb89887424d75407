"""Replacement of non-finite logits, for attacks that determine success by argmax.

The argmax of a row of NaN is class 0, so the official attacks would treat such an image of class 0
as correctly classified and return another example.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.predictions import is_finite


class FiniteLogits(nn.Module):
    """`model` with finite logits: non-finite rows are replaced by rows that predict a wrong class.

    It is for attacks on the images `x` (N, C, H, W) with labels `y` (N,), which pass either all of
    them, in order, or a subset. In a full batch, a row has the label of its position; in a subset,
    it has the label of the image nearest to its input. If a perturbation is longer than half the
    distance between two images, that may be the wrong image, and the row may then predict its true
    label.

    Each pass synchronizes with the device once. A caller that reads a value after each pass can
    call `model`, read the value with `read_highest`, and call `replace_nonfinite` where needed.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.model = model
        self.x = x
        self.y = y

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes); a row that was replaced has a gradient of zero."""
        return self.replace_nonfinite(x, self.model(x))

    def replace_nonfinite(self, x: Tensor, logits: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of `x` with all rows finite; see `forward`."""
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


def read_highest(values: Tensor, logits: Tensor) -> float:
    """Return the highest of `values` (N,), or NaN if the sum of all `logits` is not finite.

    This is one synchronization for both.
    """
    return torch.add(values.amax(), logits.sum(), alpha=0).item()
