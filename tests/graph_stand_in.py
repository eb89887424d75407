"""A stand-in for the CUDA graphs of a model's passes, where there is no GPU."""

import torch
from torch import Tensor, nn

from adrbench.models.graphed import Passes


class SharedMemory:
    """Imitates CUDA graphs that share a pool: a backward pass uses the latest forward pass.

    It consumes that pass's intermediate results, as graphs overwrite their shared memory.
    """

    def __init__(self) -> None:
        self.intermediate: tuple[Tensor, Tensor] | None = None
        self.sizes: list[int] = []
        self.models: list[nn.Module] = []

    def __call__(self, model: nn.Module, x: Tensor) -> Passes:
        self.sizes.append(len(x))
        self.models.append(model)
        static = x.clone()
        logits = torch.empty_like(model(x)).detach()
        d_logits, d_x = torch.empty_like(logits), torch.empty_like(x)

        def forward() -> None:
            with torch.enable_grad():
                leaf = static.clone().requires_grad_()
                self.intermediate = leaf, model(leaf)
            logits.copy_(self.intermediate[1].detach())

        def backward() -> None:
            assert self.intermediate is not None, "no intermediate results of a forward pass"
            leaf, output = self.intermediate
            assert output.shape == logits.shape, "intermediate results of another forward pass"
            d_x.copy_(torch.autograd.grad(output, leaf, d_logits)[0])
            self.intermediate = None

        return Passes(
            x=static,
            logits=logits,
            d_logits=d_logits,
            d_x=d_x,
            forward=forward,
            backward=backward,
        )
