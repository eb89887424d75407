"""The stages of an evaluation, and which of them its saved progress leaves to be run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adrbench.attacks.stages import Stage
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.errors import RecordError
from adrbench.evaluation.adversarial import BatchExamples
from adrbench.evaluation.batch_files import BatchStore
from adrbench.evaluation.progress import Progress, ProgressStore, begin
from adrbench.evaluation.search import Recheck
from adrbench.printable import get_logger
from adrbench.runtime.arithmetic import FLOAT32, Arithmetic
from adrbench.runtime.process_group import ProcessGroup

logger = get_logger(__name__)

CLEAN = "clean"


class CleanPass:
    """The stage before all others: the images without a perturbation."""

    name = CLEAN

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return `x`."""
        return x


def list_stages(suite: Suite, threat: ThreatModel, searched: Arithmetic) -> tuple[Stage, ...]:
    """Return all stages of an evaluation whose attacks search in the arithmetic `searched`."""
    recheck = [] if searched == FLOAT32 else [Recheck(suite.stages, threat)]
    return (CleanPass(), *suite.stages, *recheck)


def load_progress(store: ProgressStore, n: int, process_group: ProcessGroup) -> Progress:
    """Return the saved progress of an evaluation of `n` images, or that before its first stage.

    Rank 0 loads it for all ranks.
    """
    loaded = store.load() if process_group.is_rank_zero else None
    return process_group.broadcast(loaded) or begin(n)


def find_remaining(stages: Sequence[Stage], progress: Progress) -> Sequence[Stage]:
    """Return the stages that are not finished, with a note if one of them is resumed.

    Raises:
        RecordError: when the progress is after other stages.

    """
    finished = [done.name for done in progress.stages]
    if finished != [stage.name for stage in stages[: len(finished)]]:
        attacks = [stage.name for stage in stages if not isinstance(stage, CleanPass | Recheck)]
        raise RecordError(
            f"the saved progress is after the attacks {', '.join(finished)}, but the suite has "
            f"{', '.join(attacks)}: start over without it."
        )
    remaining = stages[len(finished) :]
    if remaining and progress.done:
        logger.info(f"resuming {progress.describe(remaining[0].name)}.")
    return remaining


def check_examples(examples: BatchStore[BatchExamples], progress: Progress) -> None:
    """Raise RecordError unless the examples of every batch that is done were saved."""
    stage = len(progress.stages)
    earlier = [
        (done, 0) for done in range(stage) if done == 0 or progress.stages[done - 1].survivors
    ]
    for place in [*earlier, *((stage, batch) for batch in progress.done)]:
        if not examples.has(*place):
            raise RecordError(
                "the saved progress belongs to an evaluation that did not keep its adversarial "
                "examples: finish it without keeping them, or start it over."
            )


def find_unconfirmed(progress: Progress) -> Tensor:
    """Return the survivors that an attack fooled only in the arithmetic of its search, (K,)."""
    survivors = progress.entered.nonzero().flatten().tolist()
    return torch.tensor([index for index in survivors if index in progress.unconfirmed])
