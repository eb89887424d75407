"""Passes of a frozen model that `torch.compile` makes faster, for the largest batches of a search.

Compiling takes tens of seconds for each batch size, so it is for long evaluations only, and for the
sizes at which most of their passes run.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adrbench.errors import first_line
from adrbench.models.graphed import MakePasses, Passes
from adrbench.printable import get_logger

logger = get_logger(__name__)

#: Batches smaller than this part of the largest batch are not compiled. The sizes from here on are
#: three (see `graphed.SIZE_RATIO`).
SMALLEST_PART = 0.5
#: How many variants of a network a process can compile.
MAX_VARIANTS = 1000


class CompiledPasses:
    """Makes the passes of a compiled form of a model for large batches, of the model for others.

    The passes themselves are made by `make_passes`; `largest` is the size of the largest batch. If
    compiling fails, a warning gives the reason, and from then on nothing is compiled.
    """

    def __init__(self, make_passes: MakePasses, largest: int, backend: str = "inductor") -> None:
        self.make_passes = make_passes
        self.smallest = SMALLEST_PART * largest
        self.backend = backend
        #: The sizes of the batches for which the model was compiled.
        self.sizes: list[int] = []
        self.has_failed = False

    def __call__(self, model: nn.Module, x: Tensor) -> Passes:
        """Return the passes of `model` on batches like `x` (N, C, H, W); grad mode must be on."""
        if self.has_failed or len(x) < self.smallest:
            return self.make_passes(model, x)
        logger.info(f"compiling the model for batches of {len(x)} images.")
        try:
            with compiling():
                compiled = torch.compile(model, backend=self.backend, dynamic=False, fullgraph=True)
                passes = self.make_passes(compiled, x.detach().clone())  # type: ignore[arg-type]
        except Exception as error:  # the compiler runs the code of the model: either may raise
            self.has_failed = True
            logger.warning(f"running without a compiled model: {find_reason(error)}.")
            return self.make_passes(model, x)
        self.sizes.append(len(x))
        return passes


@contextmanager
def compiling() -> Iterator[None]:
    """Let PyTorch compile, without warnings, as many variants of a network as this process needs.

    By default it compiles 8, such as for 8 batch sizes, and runs all others uncompiled.
    """
    # Only the first call of a process takes a moment, so what does not compile avoids it.
    import torch._dynamo

    limits = {"recompile_limit": MAX_VARIANTS, "accumulated_recompile_limit": MAX_VARIANTS}
    log = logging.getLogger("torch.utils.cpp_extension")  # noqa: TID251 - not a logger of ours
    log.addFilter(is_of_interest)
    try:
        with warnings.catch_warnings(action="ignore"), torch._dynamo.config.patch(limits):
            yield
    finally:
        log.removeFilter(is_of_interest)


def is_of_interest(record: logging.LogRecord) -> bool:
    """Return whether a log record is not the one on the CUDA toolkit of a machine without a GPU."""
    return not str(record.msg).startswith("No CUDA runtime is found")


def find_reason(error: Exception) -> str:
    """Return why a compilation failed, for use in a sentence.

    PyTorch's errors contain the one that a backend raised.
    """
    cause = getattr(error, "inner_exception", error)
    return f"torch.compile raised {type(cause).__name__} ({first_line(cause)})"


def count_operations(model: nn.Module, x: Tensor) -> int:
    """Return the floating-point operations of a forward pass on the images `x` (N, C, H, W).

    Those of convolutions and matrix products are counted; a multiplication and an addition are two.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(x)
    return int(counter.get_total_flops())
