"""A model whose batches are split into chunks when a whole batch does not fit into memory."""

from typing import Any

import torch
from torch import Tensor, nn


class ChunkedModel(nn.Module):
    """`model`, run on at most `size` images at a time; None means whole batches.

    Chunks are processed one after another. The gradient with respect to images is computed from a
    second forward pass of each chunk, so only the activations of one chunk are in memory at a time.
    It is zero for a chunk whose logits do not depend on the images. Parameters get no gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.size: int | None = None

    def shrink(self, batch_size: int) -> bool:
        """Halve the chunk size for batches of `batch_size`; return False if it is already 1."""
        size = min(self.size or batch_size, batch_size)
        if size <= 1:
            return False
        self.size = (size + 1) // 2
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor
        if self.size is None or len(x) <= self.size:
            logits = self.model(x)
        else:
            logits = _InChunks.apply(x, self.model, self.size)
        return logits


class _InChunks(torch.autograd.Function):
    """The forward pass in chunks; the backward pass repeats it, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: nn.Module, size: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.model, ctx.size = model, size
        with torch.no_grad():
            return torch.cat([model(chunk) for chunk in torch.split(x, size)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (d_logits,) = gradients
        parts: list[Tensor] = []
        for chunk, d_chunk in zip(
            torch.split(x, ctx.size), torch.split(d_logits, ctx.size), strict=True
        ):
            variable = chunk.detach().requires_grad_()
            with torch.enable_grad():
                logits = ctx.model(variable)
            if not logits.requires_grad:
                parts.append(torch.zeros_like(variable))
                continue
            parts += torch.autograd.grad(
                logits, variable, d_chunk, allow_unused=True, materialize_grads=True
            )
        return torch.cat(parts), None, None
