"""A model that is not asked again about images on which it was clearly fooled.

AutoAttack's APGD goes on with the whole batch to its last iteration, and an image counts as fooled
if the model was wrong about it in any. From then on it makes no difference to the image what is
answered, as long as the answer is its label, and none to others: APGD treats the images of a batch
apart, and its random draws depend on the batch's shape alone. Verdicts are those of the whole
batch, up to the rounding of a forward pass in another batch size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.models.frozen import TOLERANCE, difference

#: By how much a wrong logit has to lead before its image is spared. APGD keeps the latest image
#: that fools, which is the one found by then, and it should still fool when it is judged again.
EXIT_MARGIN = 0.01


class EarlyExit(nn.Module):
    """`model`, which while `watching` is not asked about images that clearly fooled it before.

    The first batch that is cut short is asked in full as well: where an image's answer depends on
    the others in its batch, none is spared.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.labels: Tensor | None = None
        self.open = torch.empty(0, dtype=torch.int64)
        self.images_are_apart: bool | None = None
        self.like = torch.empty(0)

    @contextmanager
    def watching(self, labels: Tensor) -> Iterator[None]:
        """Take every batch for the images of these `labels` (N,), until each was fooled."""
        self.labels, self.open = labels, torch.arange(len(labels), device=labels.device)
        try:
            yield
        finally:
            self.labels = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes); a spared image's say its label and have no gradient."""
        labels = self.labels
        if labels is None or len(labels) != len(x) or self.images_are_apart is False:
            answers: Tensor = self.model(x)
            return answers
        logits: Tensor
        if len(self.open) == len(x):
            logits = self.model(x)
            self.like = logits.detach()
        else:
            logits = self._ask_open(x, labels)
        wrong = logits.detach().scatter(1, labels[:, None], -torch.inf).amax(1)
        lead = wrong - logits.detach().gather(1, labels[:, None]).squeeze(1)
        self.open = self.open[~(lead[self.open] > EXIT_MARGIN)]
        return logits

    def _ask_open(self, x: Tensor, labels: Tensor) -> Tensor:
        spared = F.one_hot(labels, self.like.shape[1]).to(self.like)
        if len(self.open) == 0:
            # Connected to the images, with a gradient of zero even where they are not finite.
            never = torch.zeros((), dtype=torch.bool, device=x.device)
            unread = x.flatten(1).sum(1, keepdim=True).to(self.like)
            return torch.where(never, unread, spared)
        asked: Tensor = self.model(x[self.open])
        if self.images_are_apart is None:
            whole: Tensor = self.model(x)
            same = difference(whole[self.open], asked) <= TOLERANCE
            self.images_are_apart = same
            if not same:
                return whole
        return spared.index_put((self.open,), asked)


def add_early_exit(attack: Any) -> None:
    """Let an official APGD object spare its model the images of a run that fooled it already."""
    model = EarlyExit(attack.model)
    run: Callable[..., Any] = attack.attack_single_run

    def watched(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        with model.watching(y):
            return run(x, y, x_init)

    attack.model, attack.attack_single_run = model, watched
