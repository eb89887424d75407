"""The model in the arithmetic in which attacks search, and the repetition of unconfirmed outcomes.

An attack that searches in reduced precision returns images that the model may classify correctly in
float32, in which all outcomes are judged. Such images stay in the evaluation. Those that no attack
fools in float32 either are attacked once more, in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.predictions import is_correct
from adrbench.attacks.stages import Stage
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError, argument
from adrbench.evaluation.judge import is_within
from adrbench.models.chunked import ChunkedModel
from adrbench.models.compiled import CompiledPasses, count_operations
from adrbench.models.graphed import GraphedModel, GraphedPasses, MakePasses
from adrbench.models.modes import restored_buffers
from adrbench.models.reduced import Fallback, reduce_precision
from adrbench.runtime.arithmetic import SIXTEEN_BITS, Arithmetic

#: Operations of forward passes, as many as the attacks can make, from which on compiling saves
#: time. It takes about 45 s for the three largest batch sizes, and makes passes 15 to 20 % faster
#: (H200, PyTorch 2.11). AutoAttack on 10,000 images has 9e16 with a ResNet-18.
WORTH_COMPILING = 5e16
#: The name of the last stage of a search in reduced precision.
RECHECK = "recheck"


@dataclass(frozen=True, kw_only=True)
class Search:
    """A frozen model, as attacks run on it, and the arithmetic in which it computes.

    `graphed` is the part of it that replays CUDA graphs, `compilation` has the batch sizes for
    which it was compiled, and `fallback` repeats passes in float32; each is None where that is not
    done.
    """

    model: ChunkedModel
    arithmetic: Arithmetic
    graphed: GraphedModel | None = None
    compilation: CompiledPasses | None = None
    fallback: Fallback | None = None

    @property
    def repeated(self) -> int:
        """The number of passes that were repeated in float32, as their results were not finite."""
        return 0 if self.fallback is None else self.fallback.repeated

    @property
    def is_compiled(self) -> bool:
        """Whether passes of the largest batches are compiled."""
        if self.graphed is None or self.compilation is None:
            return False
        return any(size in self.compilation.sizes for _, size in self.graphed.passes)


def is_worth_compiling(frozen: nn.Module, stages: Sequence[Stage], x: Tensor, n: int) -> bool:
    """Return whether the attacks on `n` images like `x` (N, C, H, W) are long enough to compile.

    They are not if their passes, or the operations of a pass, cannot be counted.
    """
    num_passes = sum(getattr(stage, "num_passes", 0) for stage in stages)
    try:
        operations = count_operations(frozen, x[:1])
    except Exception:  # counting runs the model's code in a mode that it may not support
        return False
    return n * num_passes * operations >= WORTH_COMPILING


def make_search(
    frozen: nn.Module, arithmetic: Arithmetic, x: Tensor, *, graphed: bool, compiled: bool = False
) -> Search:
    """Return the form of a frozen float32 model for a search on batches up to the size of `x`.

    `graphed` is whether its passes are replayed as CUDA graphs, and `compiled` whether those of the
    largest batches are compiled before. The images `x` are (N, C, H, W).

    Raises:
        UsageError: when the model cannot compute in `arithmetic`.

    """
    model: nn.Module = frozen
    graph: GraphedModel | None = None
    fallback: Fallback | None = None
    is_reduced = arithmetic in SIXTEEN_BITS
    if is_reduced:
        try:
            model = reduce_precision(frozen, arithmetic, x)
        except ValueError as error:
            raise UsageError(
                f"the model cannot be attacked in {arithmetic}: {error}; give "
                f"{argument('precision', 'float32')}."
            ) from error
    compilation = None
    if graphed:
        make_passes: MakePasses = GraphedPasses(x.device)
        if compiled:
            make_passes = compilation = CompiledPasses(make_passes, len(x))
        model = graph = GraphedModel(model, x, len(x), make_passes)
    if is_reduced:
        model = fallback = Fallback(model, frozen)
    return Search(
        model=ChunkedModel(model),
        arithmetic=arithmetic,
        graphed=graph,
        compilation=compilation,
        fallback=fallback,
    )


class Recheck:
    """A stage that attacks in float32 what an attack fooled only in the arithmetic of its search.

    It runs `stages` one after the other, each on the images that no earlier one fooled.
    """

    name = RECHECK

    def __init__(self, stages: Sequence[Stage], threat: ThreatModel) -> None:
        self.stages = stages
        self.threat = threat

    @property
    def num_passes(self) -> int:
        """The most forward passes on a batch, 0 if those of a stage are unknown."""
        passes = [getattr(stage, "num_passes", 0) for stage in self.stages]
        return sum(passes) + len(passes) if all(passes) else 0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return examples like `x` (N, C, H, W): the first that fools the model, or the last."""
        x_adv, remaining = x.clone(), torch.arange(len(x), device=x.device)
        for stage in self.stages:
            if len(remaining) == 0:
                break
            images, labels = x[remaining], y[remaining]
            with restored_buffers(model):  # an attack may change them, and the mode
                found = stage.perturb(model, images.clone(), labels.clone(), indices[remaining])
            model.eval()
            found = found.detach().to(x)
            with torch.no_grad():
                is_fooled = ~is_correct(model(found), labels)
            x_adv[remaining] = found
            remaining = remaining[~(is_fooled & is_within(self.threat, images, found))]
        return x_adv
