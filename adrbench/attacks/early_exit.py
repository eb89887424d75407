"""Early exit: images that are clearly misclassified are removed from APGD's batch.

AutoAttack's APGD runs all iterations on the whole batch, and an attack succeeds on an image if the
model misclassifies any iterate. After that, the outcomes of this and of all other images stay the
same if its logits are replaced by ones that predict its label: APGD treats the images of a batch
independently, and its random draws depend only on the batch's shape. Per-example outcomes are those
of the whole batch, up to the rounding of a forward pass at another batch size.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.attacks.finite_logits import FiniteLogits, read_highest
from adrbench.attacks.pgd import margins
from adrbench.models.frozen import relative_difference
from adrbench.runtime.arithmetic import TOLERANCES, Arithmetic, arithmetic_of_search

#: The margin above which an image leaves the batch, by the arithmetic of the search. APGD returns
#: the iterate that was misclassified last, which is the one from that pass, and it should still be
#: misclassified when the evaluation checks it in float32.
EXIT_MARGINS: Mapping[Arithmetic, float] = {
    "float32": 0.01,
    "tf32": 0.02,
    "bfloat16": 0.1,
    "float16": 0.02,
}


class EarlyExit(nn.Module):
    """`model`, which within `tracking` runs only on images not yet clearly misclassified.

    The first reduced batch is also run in full: if an image's logits depend on the rest of its
    batch, no image is removed.
    """

    def __init__(self, model: FiniteLogits) -> None:
        super().__init__()
        self.model = model
        self.exit_margin = EXIT_MARGINS[arithmetic_of_search()]
        self.tolerance = TOLERANCES[arithmetic_of_search()]
        self.labels: Tensor | None = None
        #: Indices of the images that are still in the batch.
        self.active = torch.empty(0, dtype=torch.int64)
        #: Whether an image's logits depend on it alone; None until this has been checked.
        self.is_batch_independent: bool | None = None
        #: The logits of the last full batch, for their width, type and device.
        self.full_logits = torch.empty(0)

    @contextmanager
    def tracking(self, labels: Tensor) -> Iterator[None]:
        """Treat every batch as the images of these `labels` (N,), initially all active."""
        self.labels, self.active = labels, torch.arange(len(labels), device=labels.device)
        try:
            yield
        finally:
            self.labels = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes); an inactive image has its one-hot label, no gradient."""
        labels = self.labels
        if labels is None or len(labels) != len(x) or self.is_batch_independent is False:
            logits: Tensor = self.model(x)
            return logits
        if len(self.active) == len(x):
            logits = self._run(x, labels)
            self.full_logits = logits.detach()
            return logits
        return self._run_active(x, labels)

    def _run(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of the active images, and remove those that are clearly misclassified.

        It synchronizes with the device once, and another time when images are removed.
        """
        logits: Tensor = self.model.model(x)
        leads = margins(logits.detach(), labels)
        highest = read_highest(leads, logits.detach())
        if math.isnan(highest):
            logits = self.model.replace_nonfinite(x, logits)
            leads = margins(logits.detach(), labels)
            highest = leads.amax().item()
        if highest > self.exit_margin:
            self.active = self.active[leads <= self.exit_margin]
        return logits

    def _run_active(self, x: Tensor, labels: Tensor) -> Tensor:
        active = self.active
        one_hot = F.one_hot(labels, self.full_logits.shape[1]).to(self.full_logits)
        if len(active) == 0:
            # Depends on x, with a gradient of zero even where x is not finite.
            never = torch.zeros((), dtype=torch.bool, device=x.device)
            unused = x.flatten(1).sum(1, keepdim=True).to(self.full_logits)
            return torch.where(never, unused, one_hot)
        active_logits = self._run(x[active], labels[active])
        if self.is_batch_independent is None:
            logits: Tensor = self.model(x)
            difference = relative_difference(logits[active], active_logits)
            self.is_batch_independent = difference <= self.tolerance
            if not self.is_batch_independent:
                return logits
        return one_hot.index_put((active,), active_logits)


def add_early_exit(attack: Any, finite: FiniteLogits) -> None:
    """Make an official APGD object on `finite` skip clearly misclassified images in each run."""
    model = EarlyExit(finite)
    run: Callable[..., Any] = attack.attack_single_run

    def run_with_early_exit(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        with model.tracking(y):
            return run(x, y, x_init)

    attack.model, attack.attack_single_run = model, run_with_early_exit
