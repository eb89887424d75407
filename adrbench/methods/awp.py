"""Adversarial weight perturbation (Wu, Xia and Wang 2020)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.config.components import AWPSettings
from adrbench.methods.slots import BuildContext, NoPerturbation
from adrbench.models.modes import frozen_statistics
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

#: Keeps the ratio of norms finite where a gradient is zero, as in the published code.
TINY = 1e-20


@dataclass(frozen=True)
class AWP:
    """Gradients at adversarially perturbed weights (Wu, Xia and Wang 2020).

    Every parameter w is moved by rho ||w|| / ||g|| g, gradients are computed there with BatchNorm's
    running statistics frozen, and w is restored bit for bit.

    Differs from the paper: like the published ADR code it perturbs the model itself and every
    parameter with a gradient, not a proxy network and weights of two dimensions or more.
    """

    rho: float
    process_group: ProcessGroup = SINGLE_PROCESS

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Compute the gradients at the perturbed weights.

        The loss returned is the unperturbed one, unless the perturbed one is not finite: its
        gradients must then not be used.
        """
        plain = NoPerturbation(self.process_group)
        loss = plain.backward(model, closure)
        with self._perturbed(model), frozen_statistics(model):
            perturbed = plain.backward(model, closure)
        return torch.where(perturbed.isfinite(), loss, perturbed)

    @contextmanager
    def _perturbed(self, model: nn.Module) -> Iterator[None]:
        moved: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        originals = [p.detach().clone() for p in moved]
        self._move(moved)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(moved, originals)

    @torch.no_grad()
    def _move(self, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        weight_norms = torch.stack(torch._foreach_norm(parameters))
        gradient_norms = torch.stack(torch._foreach_norm(gradients))
        scales = self.rho * weight_norms / (gradient_norms + TINY)
        torch._foreach_addcmul_(parameters, gradients, list(scales))


def build(context: BuildContext, settings: AWPSettings) -> AWP:
    """Return the perturbation."""
    return AWP(settings.awp_rho, context.process_group)
