"""The model as attacks receive it: its temporary state, its frozen form, and searches on that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.stages import Stage
from adrbench.evaluation.progress import Progress
from adrbench.evaluation.search import Search, is_worth_compiling, make_search
from adrbench.models.frozen import FORMATS, Frozen, ModelFreezer, formats_for
from adrbench.models.modes import in_mode, restored_buffers, without_parameter_gradients
from adrbench.runtime.arithmetic import FLOAT32, Arithmetic, full_precision
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.process_group import ProcessGroup


@contextmanager
def ready_for_attacks(model: nn.Module) -> Iterator[None]:
    """Put a model into the state in which it is attacked, and return it to that before.

    Within the context torch computes in float32 with TF32 off.
    """
    with (
        torch.inference_mode(False),
        in_mode(model, training=False),
        without_parameter_gradients(model),
        restored_buffers(model),
        full_precision(),
    ):
        yield


@dataclass(frozen=True, kw_only=True)
class AttackedModel:
    """The frozen form of a model, in the arithmetic of the search and in that of the judge."""

    frozen: Frozen
    search: Search
    in_float32: Search


def prepare_model(
    model: nn.Module,
    x: Tensor,
    progress: Progress,
    stages: Sequence[Stage],
    *,
    searched: Arithmetic,
    optimize: bool,
    process_group: ProcessGroup,
    freezer: ModelFreezer,
) -> AttackedModel:
    """Freeze a model for an evaluation by `stages`, in batches up to the size of `x` (N, C, H, W).

    The memory format is that in `progress`, or else it is chosen and noted there. `optimize` spends
    time on fast passes, which pays off over many batches.

    Raises:
        UsageError: when the model cannot compute in the arithmetic `searched`.

    """
    frozen = freeze_alike(
        model,
        x,
        FORMATS.get(progress.memory_format),
        formats_for(x, searched) if optimize else (IMAGE_FORMAT,),
        process_group=process_group,
        freezer=freezer,
    )
    progress.memory_format = frozen.memory_format
    is_graphed = optimize and x.is_cuda
    search = in_float32 = make_search(frozen.model, FLOAT32, x, graphed=is_graphed)
    if searched != FLOAT32:
        num_left = int(progress.survivors.sum())
        is_long = is_graphed and is_worth_compiling(frozen.model, stages, x, num_left)
        search = make_search(frozen.model, searched, x, graphed=is_graphed, compiled=is_long)
    return AttackedModel(frozen=frozen, search=search, in_float32=in_float32)


def freeze_alike(
    model: nn.Module,
    x: Tensor,
    resumed: torch.memory_format | None,
    formats: Sequence[torch.memory_format],
    *,
    process_group: ProcessGroup,
    freezer: ModelFreezer,
) -> Frozen:
    """Freeze the model on every rank, in that of the memory `formats` that rank 0 chooses.

    A resumed evaluation keeps the format that it began with.
    """
    formats = formats if resumed is None else (resumed,)
    frozen = freezer.freeze(model, x, formats) if process_group.is_rank_zero else None
    chosen = process_group.broadcast(frozen.memory_format if frozen else "")
    return frozen or freezer.freeze(model, x, (FORMATS.get(chosen, IMAGE_FORMAT),))
