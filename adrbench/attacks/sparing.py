"""A model that is not asked again about images on which it was fooled.

AutoAttack's APGD keeps the first adversarial image it finds and goes on with the whole batch to
its last iteration. What a fooled image's rows hold from then on changes no verdict: APGD treats
the images of a batch apart, and its random draws depend on the batch's shape alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sparing(nn.Module):
    """`model`, which while `watching` answers for fooled images with their label, at no cost."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.labels: Tensor | None = None
        self.open = torch.empty(0, dtype=torch.int64)
        self.num_classes = 0

    @contextmanager
    def watching(self, labels: Tensor) -> Iterator[None]:
        """Take every batch for the images of these `labels` (N,), until each was fooled once."""
        self.labels, self.open = labels, torch.arange(len(labels), device=labels.device)
        try:
            yield
        finally:
            self.labels = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes); a fooled image's say its label and have no gradient."""
        labels = self.labels
        if labels is None or len(labels) != len(x):
            answers: Tensor = self.model(x)
            return answers
        logits = self.model(x) if len(self.open) == len(x) else self._ask_open(x, labels)
        right = logits.detach().max(1)[1] == labels  # the words of APGD's own test
        self.open = self.open[right[self.open]]
        self.num_classes = logits.shape[1]
        return logits

    def _ask_open(self, x: Tensor, labels: Tensor) -> Tensor:
        spared = F.one_hot(labels, self.num_classes).to(x.dtype)
        if len(self.open) == 0:
            return spared + 0 * x.flatten(1).sum(1, keepdim=True)
        return spared.index_put((self.open,), self.model(x[self.open]))


def spare_fooled(attack: Any) -> None:
    """Let an official APGD object spare its model the images of a run that fooled it already."""
    model = Sparing(attack.model)
    run: Callable[..., Any] = attack.attack_single_run

    def watched(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        with model.watching(y):
            return run(x, y, x_init)

    attack.model, attack.attack_single_run = model, watched
