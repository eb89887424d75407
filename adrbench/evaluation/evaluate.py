"""Evaluation: a clean pass, then each stage of a suite on the survivors of the last.

Attacks are not trusted: the evaluation checks that every adversarial image is inside the ball and
inside [0, 1], and determines whether the model is fooled.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from adrbench.attacks.reliability_warnings import collected_warnings
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import RecordError
from adrbench.evaluation.adversarial import AdversarialExamples, BatchExamples, assemble
from adrbench.evaluation.batch_files import BatchStore
from adrbench.evaluation.maximization import attack_others
from adrbench.evaluation.outputs import BatchOutputs, assemble_outputs
from adrbench.evaluation.progress import NoProgressStore, Progress, ProgressStore, begin, unique
from adrbench.evaluation.reliability import assess_reliability
from adrbench.evaluation.search import (
    RECHECK,
    Recheck,
    Search,
    is_worth_compiling,
    make_search,
)
from adrbench.evaluation.stage_runner import SILENT, ProgressCallbacks, StageRunner
from adrbench.models.frozen import FORMATS, Freezer, Frozen, ModelFreezer, formats_for
from adrbench.models.modes import in_mode, restored_buffers, without_parameter_gradients
from adrbench.registry import calling_user_code
from adrbench.results.outputs import Outputs
from adrbench.results.records import StageResult
from adrbench.runtime.arithmetic import FLOAT32, Arithmetic, full_precision
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.locks import GLOBAL_STATE
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

logger = logging.getLogger(__name__)

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of an evaluation of n images.

    `clean` and `robust` are per-example outcomes in test-set order, (n,) booleans on the CPU.
    `folded` is whether BatchNorm was folded into convolutions in the model that was attacked,
    `compiled` whether passes of its largest batches were compiled, `rechecked` the number of images
    that were attacked again in float32, `repeated` that of images in batches with passes that were
    repeated in float32 because results of the search were not finite, and `seconds` the time taken
    over all sessions, without that for outputs alone. `adversarial` are the examples and `outputs`
    the model's outputs, if they were kept.
    """

    clean: Tensor
    robust: Tensor
    stages: tuple[StageResult, ...]
    warnings: tuple[str, ...]
    folded: bool
    compiled: bool
    rechecked: int
    repeated: int
    seconds: float
    adversarial: AdversarialExamples | None = None
    outputs: Outputs | None = None

    @property
    def clean_correct(self) -> int:
        """The number of images that are classified correctly without an attack."""
        return int(self.clean.sum())

    @property
    def robust_correct(self) -> int:
        """The number of images that are classified correctly under every stage."""
        return int(self.robust.sum())


class CleanPass:
    """The stage before all others: the images without a perturbation."""

    name = CLEAN

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return `x`."""
        return x


def evaluate(
    model: nn.Module,
    images: Images,
    suite: Suite,
    threat: ThreatModel,
    *,
    batch_size: int,
    callbacks: ProgressCallbacks = SILENT,
    label: str = "the model",
    num_classes: int | None = None,
    check_reliability: bool = True,
    optimize_model: bool = False,
    searched: Arithmetic = FLOAT32,
    progress_store: ProgressStore | None = None,
    example_store: BatchStore[BatchExamples] | None = None,
    output_store: BatchStore[BatchOutputs] | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    freezer: ModelFreezer | None = None,
) -> Evaluation:
    """Attack `model` on `images`, on the device both are on, and judge the outcomes in float32.

    A logit that is not finite is never a success of the model: attacked images with one count as
    not robust, with a warning. `label` names the model in messages. `num_classes` is the number of
    its outputs, which is checked for every batch if it is given. After the clean pass the model
    is checked on a few images for what makes attacks fail, unless `check_reliability` is false.

    The attacks run on the frozen form of the model. `optimize_model` spends time on making that
    form fast, which pays off over many batches: its memory format is chosen with more care, and on
    a GPU its passes are replayed as CUDA graphs where possible, in long evaluations compiled.
    `searched` is the arithmetic of the attacks; images that they fool only in that are attacked
    again in float32 (see `Recheck`). The model itself is returned to its state before the call, and
    so is torch's random state. Calls from several threads run one after another, since they would
    change that state for each other.

    After every batch the progress is saved in `progress_store`, from which an interrupted
    evaluation resumes, and its adversarial examples in `example_store`. With an `output_store`, for
    a suite of one attack that has `maximize`, all images are attacked for the outputs of the model;
    the store has what is finished of that. Where memory does not suffice for a batch, the passes of
    the model are split, and the batch stays as it is. Every rank of `process_group` calls this and
    returns the whole evaluation; the ranks share the batches, which do not depend on the number of
    ranks. Evaluations one after another can share a `freezer`: of one model a `Freezer`, of one
    whose weights change a `RefillingFreezer`.

    Raises:
        NonFiniteLogitsError: after the clean pass, on all ranks, if a logit was not finite there.
        RecordError: when the saved progress belongs to an evaluation that kept no examples.
        UsageError: when the model cannot compute in the arithmetic of the attacks.

    """
    started = time.perf_counter()
    progress_store = progress_store or NoProgressStore()
    x = to_float(images.first(min(batch_size, len(images))).pixels)
    progress = process_group.broadcast(
        progress_store.load() if process_group.is_rank_zero else None
    ) or begin(len(images))
    earlier_seconds = progress.seconds
    recheck = Recheck(suite.stages, threat)
    all_stages = (CleanPass(), *suite.stages, *([] if searched == FLOAT32 else [recheck]))
    stages = all_stages[len(progress.stages) :]
    finished = [done.name for done in progress.stages]
    if finished != [stage.name for stage in all_stages[: len(finished)]]:
        raise RecordError(
            f"the saved progress is after the attacks {', '.join(finished)}, but the suite has "
            f"{', '.join(stage.name for stage in suite.stages)}: start over without it."
        )
    if example_store is not None:
        _check_examples(example_store, progress)
    if stages and progress.done:
        logger.info(f"resuming {progress.describe(stages[0].name)}.")
    with (
        GLOBAL_STATE,
        torch.inference_mode(False),
        in_mode(model, training=False),
        without_parameter_gradients(model),
        restored_buffers(model),
        full_precision(),
        collected_warnings() as collected,
    ):
        frozen = _freeze_alike(
            model,
            x,
            FORMATS.get(progress.memory_format),
            formats_for(x, searched) if optimize_model else (IMAGE_FORMAT,),
            process_group=process_group,
            freezer=freezer or Freezer(),
        )
        progress.memory_format = frozen.memory_format

        def save() -> None:
            progress.seconds = earlier_seconds + time.perf_counter() - started
            progress.warnings = unique([*progress.warnings, *collected()])
            progress.compiled |= search.is_compiled
            progress_store.save(progress)

        is_graphed = optimize_model and x.is_cuda
        search = in_float32 = make_search(frozen.model, FLOAT32, x, graphed=is_graphed)
        if searched != FLOAT32:
            num_left = int(progress.survivors.sum())
            is_long = is_graphed and is_worth_compiling(frozen.model, suite.stages, x, num_left)
            search = make_search(frozen.model, searched, x, graphed=is_graphed, compiled=is_long)
        runner = StageRunner(
            judge=in_float32.model,
            is_frozen=frozen.model is not model,
            label=label,
            num_classes=num_classes,
            suite=suite.name,
            images=images,
            threat=threat,
            batch_size=batch_size,
            progress=progress,
            callbacks=callbacks,
            examples=example_store,
            outputs=output_store,
            save=save,
            process_group=process_group,
        )
        for stage in stages:
            if check_reliability and progress.is_before_attacks:
                assess = partial(
                    assess_reliability,
                    model,
                    attacked=frozen.model,
                    images=images,
                    clean=progress.survivors,
                    suite=suite,
                    threat=threat,
                )
                doubts = process_group.broadcast(
                    _call_user_code(assess, label) if process_group.is_rank_zero else []
                )
                progress.warnings = unique([*progress.warnings, *doubts])
            if stage is recheck:
                repeat_unconfirmed(runner, recheck, in_float32)
            else:
                runner.run(stage, in_float32 if stage.name == CLEAN else search)
        with calling_user_code(lambda raised: f"review of suite {suite.name} {raised}."):
            suite.review(
                {
                    stage.name: stage.survivors / len(images)
                    for stage in progress.stages
                    if stage.name != RECHECK
                }
            )
        seconds = earlier_seconds + time.perf_counter() - started
        outputs = None if output_store is None else _keep_outputs(runner, suite, search)
    assert progress.clean is not None
    texts = process_group.all_gather([*progress.warnings, *collected()])
    return Evaluation(
        clean=progress.clean,
        robust=progress.survivors,
        stages=tuple(progress.stages[1:]),
        warnings=(*suite.left_out, *unique(text for of_rank in texts for text in of_rank)),
        folded=frozen.folded,
        compiled=any(process_group.all_gather(progress.compiled)),
        rechecked=progress.rechecked,
        repeated=len(progress.repeated),
        seconds=seconds,
        outputs=outputs,
        adversarial=None
        if example_store is None
        else assemble(
            to_float(images.pixels).cpu(),
            example_store.load(),
            tuple(stage.name for stage in all_stages),
        ),
    )


def repeat_unconfirmed(runner: StageRunner, recheck: Recheck, in_float32: Search) -> None:
    """Attack the survivors again that an attack fooled only in the arithmetic of its search."""
    progress = runner.progress
    survivors = progress.entered.nonzero().flatten().tolist()
    if unconfirmed := [index for index in survivors if index in progress.unconfirmed]:
        progress.rechecked = len(unconfirmed)
        runner.run(recheck, in_float32, torch.tensor(unconfirmed))


def _keep_outputs(runner: StageRunner, suite: Suite, search: Search) -> Outputs:
    """Return the outputs on all images, attacking those whose outputs are not saved yet."""
    assert runner.outputs is not None
    (stage,) = suite.stages
    attack_others(runner, stage, search, runner.outputs)
    batches = [batch for _, batch in runner.outputs.load()]
    return assemble_outputs(runner.images, batches, stage.name)


def _call_user_code(check: Callable[[], list[str]], label: str) -> list[str]:
    """Return what a check of a model returns; UserCodeError where the model raises."""
    with calling_user_code(lambda raised: f"{label} {raised} when its gradients were checked."):
        return check()


def _check_examples(examples: BatchStore[BatchExamples], progress: Progress) -> None:
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


def _freeze_alike(
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
