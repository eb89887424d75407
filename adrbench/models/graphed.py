"""A frozen model whose passes on a GPU are replayed as CUDA graphs, in a few padded batch sizes.

It is a drop-in replacement for the model: attack code runs on it unchanged.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.errors import first_line
from adrbench.models.frozen import (
    gradient_difference,
    logits_and_gradient,
    relative_difference,
)
from adrbench.printable import get_logger
from adrbench.runtime.arithmetic import (
    GRADIENT_TOLERANCES,
    TOLERANCES,
    Arithmetic,
    arithmetic_of_search,
)
from adrbench.runtime.cuda_graphs import PLAIN_CALLS, capture_graph, side_stream

logger = get_logger(__name__)

#: The smallest batch size with a graph of its own; smaller batches are padded to it.
SMALLEST_BATCH = 16
#: Ratio of successive batch sizes with graphs: a ratio closer to 1 pads less but needs more graphs.
SIZE_RATIO = 0.75


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A forward and a backward pass for one batch size, on static tensors.

    `forward` computes `logits` from `x`; `backward`, at most once after each `forward`, computes
    `d_x` from `d_logits`.
    """

    x: Tensor
    logits: Tensor
    d_logits: Tensor
    d_x: Tensor
    forward: Callable[[], None]
    backward: Callable[[], None]


#: (model, a batch of the size and shape to capture) -> its passes.
MakePasses = Callable[[nn.Module, Tensor], Passes]


class GraphedModel(nn.Module):
    """A frozen model on a GPU, replaying its passes on batches of up to `largest` images like `x`.

    A batch is padded to the next of a few sizes; a larger one runs without graphs. Logits, and
    gradients with respect to images, are the same as the model's, in any order of forward and
    backward passes. If the passes cannot be captured, or their logits or gradients differ from the
    model's, as where an image's logits depend on the others in the batch, the model runs without
    graphs, with a warning.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        largest: int,
        make_passes: MakePasses | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.example = x[:1].detach().clone()
        self.sizes = batch_sizes(largest)
        self.make_passes = make_passes or GraphedPasses(x.device)
        #: By arithmetic and size: a graph replays the arithmetic in which it was captured.
        self.passes: dict[tuple[Arithmetic, int], Passes] = {}
        #: Identifies the forward pass whose intermediate results are in the graphs' shared memory.
        self.holder: object = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        size = next((size for size in self.sizes if size >= len(x)), None)
        if size is None or len(x) == 0 or x.shape[1:] != self.example.shape[1:]:
            return self._run_eagerly(x)
        key = (arithmetic_of_search(), size)
        if key not in self.passes and not self._capture(*key, x):
            return self._run_eagerly(x)
        logits: Tensor = _Call.apply(x, self.passes[key], self)
        return logits

    def run_forward(self, x: Tensor, passes: Passes) -> object:
        """Replay the forward pass of a batch; return a token for its intermediate results."""
        passes.x[: len(x)].copy_(x)
        passes.forward()
        self.holder = object()
        return self.holder

    def _run_eagerly(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _capture(self, arithmetic: Arithmetic, size: int, x: Tensor) -> bool:
        batch = self.example.repeat(size, *(1 for _ in self.example.shape[1:]))
        try:
            with torch.enable_grad():
                passes = self.make_passes(self.model, batch)
        except RuntimeError as error:
            self._give_up(f"they cannot be captured ({first_line(error)})")
            return False
        if reason := self._find_difference(arithmetic, passes, x):
            self._give_up(reason)
            return False
        self.passes[arithmetic, size] = passes
        return True

    def _find_difference(self, arithmetic: Arithmetic, passes: Passes, x: Tensor) -> str | None:
        """Return in words how the passes on `x` differ from the model's own; None if they do not.

        Images on which the model's own results are not finite are not compared.
        """

        def replay(images: Tensor) -> Tensor:
            logits: Tensor = _Call.apply(images, passes, self)
            return logits

        expected, found = (logits_and_gradient(one, x) for one in (self.model, replay))
        is_finite = torch.stack([part.isfinite().flatten(1).all(1) for part in expected]).all(0)
        logits, gradient = (part[is_finite] for part in expected)
        other_logits, other_gradient = (part[is_finite] for part in found)
        if len(logits) == 0:
            return None
        if not relative_difference(logits, other_logits) <= TOLERANCES[arithmetic]:
            return "an image's logits depend on the others in its batch"
        if not gradient_difference(gradient, other_gradient) <= GRADIENT_TOLERANCES[arithmetic]:
            return "they do not give the model's gradients"
        return None

    def _give_up(self, reason: str) -> None:
        self.sizes = ()
        self.passes.clear()
        logger.warning(f"running without CUDA graphs: {reason}.")


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that have graphs, smallest first, up to `largest`."""
    sizes = [largest]
    while sizes[0] > SMALLEST_BATCH:
        sizes.insert(0, max(SMALLEST_BATCH, math.ceil(SIZE_RATIO * sizes[0])))
    return tuple(sizes)


class _Call(torch.autograd.Function):
    """One forward pass through a `GraphedModel`, and the backward passes that follow it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: Passes, owner: GraphedModel) -> Tensor:
        """Return the logits of `x`."""
        ctx.passes, ctx.owner = passes, owner
        ctx.save_for_backward(x)
        ctx.held = owner.run_forward(x, passes)
        return passes.logits[: len(x)].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to `x`."""
        (x,) = ctx.saved_tensors
        passes, owner = ctx.passes, ctx.owner
        if owner.holder is not ctx.held:
            owner.run_forward(x, passes)
        passes.d_logits.zero_()
        passes.d_logits[: len(x)].copy_(gradient)
        passes.backward()
        # A backward pass frees the intermediate results of its forward pass.
        owner.holder = None
        return passes.d_x[: len(x)].clone(), None, None


class GraphedPasses:
    """Captures passes as CUDA graphs that share one memory pool on `device`.

    After a capture that fails, which may leave its pool unusable, later ones share a new pool.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, model: nn.Module, x: Tensor) -> Passes:
        """Return the passes of `model` on batches of the shape of `x`; grad mode must be on."""
        try:
            return self._capture(model, x)
        except Exception:  # capturing runs the model's code, which may raise anything
            self.pool = torch.cuda.graph_pool_handle()
            raise

    def _capture(self, model: nn.Module, x: Tensor) -> Passes:
        x.requires_grad_()
        with side_stream(self.stream):
            for _ in range(PLAIN_CALLS):
                logits = model(x)
                torch.autograd.grad(logits, x, torch.zeros_like(logits))
        forward, logits = capture_graph(lambda: model(x), self.stream, self.pool)
        d_logits = torch.zeros_like(logits)
        backward, d_x = capture_graph(
            lambda: torch.autograd.grad(logits, x, d_logits)[0], self.stream, self.pool
        )
        return Passes(
            x=x.detach(),
            logits=logits.detach(),
            d_logits=d_logits,
            d_x=d_x,
            forward=forward,
            backward=backward,
        )
