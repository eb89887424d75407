"""Perturbations of the weights between the backward pass and the optimizer's step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from adrbench.models.modes import resting_statistics
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

#: Keeps the ratio of norms finite where a gradient is zero, as in the published code.
TINY = 1e-20


class Perturbation(Protocol):
    """How gradients are taken."""

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Leave in `.grad` the gradients to step with; return the loss at the present weights.

        `closure` runs the forward pass and returns the scalar loss. Both are means over the
        processes that share a batch.
        """


@dataclass(frozen=True)
class NoPerturbation:
    """A plain backward pass."""

    process_group: ProcessGroup = SINGLE_PROCESS

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Take the gradients where the weights are."""
        model.zero_grad()
        loss = closure()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        self.process_group.average(
            [loss, *(p.grad for p in model.parameters() if p.grad is not None)]
        )
        return loss


@dataclass(frozen=True)
class AWP:
    """Gradients at adversarially perturbed weights (Wu, Xia and Wang 2020).

    Every parameter w moves by rho ||w|| / ||g|| g, the gradients are taken there with the
    running statistics of BatchNorm at rest, and w comes back bit for bit.

    Differs from the paper: like the published ADR code it perturbs the model itself and every
    parameter with a gradient, not a proxy network and weights of two dimensions or more.
    """

    rho: float
    process_group: ProcessGroup = SINGLE_PROCESS

    def backward(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        """Take the gradients at the perturbed weights.

        The loss returned is the unperturbed one, unless the perturbed one is not finite: then
        nobody should step with its gradients.
        """
        plain = NoPerturbation(self.process_group)
        loss = plain.backward(model, closure)
        with self._perturbed(model), resting_statistics(model):
            perturbed = plain.backward(model, closure)
        return torch.where(perturbed.isfinite(), loss, perturbed)

    @contextmanager
    def _perturbed(self, model: nn.Module) -> Iterator[None]:
        moved: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        kept = [p.detach().clone() for p in moved]
        self._move(moved)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(moved, kept)

    @torch.no_grad()
    def _move(self, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        sizes = torch.stack(torch._foreach_norm(parameters))
        slopes = torch.stack(torch._foreach_norm(gradients))
        scales = self.rho * sizes / (slopes + TINY)
        torch._foreach_addcmul_(parameters, gradients, list(scales))
