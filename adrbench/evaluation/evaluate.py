"""Evaluation: a clean pass, then each stage of a suite on the survivors of the last.

Attacks are not trusted: the evaluation checks that every adversarial image is inside the ball and
inside [0, 1], and determines whether the model is fooled.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from adrbench.attacks.reliability_warnings import collected_warnings
from adrbench.attacks.stages import Stage
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.evaluation.adversarial import AdversarialExamples, BatchExamples, assemble
from adrbench.evaluation.attacked_model import AttackedModel, prepare_model, ready_for_attacks
from adrbench.evaluation.batch_files import BatchStore
from adrbench.evaluation.maximization import attack_others
from adrbench.evaluation.outputs import BatchOutputs, assemble_outputs
from adrbench.evaluation.progress import NoProgressStore, Progress, ProgressStore, unique
from adrbench.evaluation.reliability import assess_reliability
from adrbench.evaluation.remaining import (
    CleanPass,
    check_examples,
    find_remaining,
    find_unconfirmed,
    list_stages,
    load_progress,
)
from adrbench.evaluation.search import RECHECK, Recheck, Search
from adrbench.evaluation.stage_runner import SILENT, ProgressCallbacks, StageRunner
from adrbench.models.frozen import Freezer, ModelFreezer
from adrbench.registry import calling_user_code
from adrbench.results.outputs import Outputs
from adrbench.results.records import StageResult
from adrbench.runtime.arithmetic import FLOAT32, Arithmetic
from adrbench.runtime.locks import GLOBAL_STATE
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup


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
    x = to_float(images.first(min(batch_size, len(images))).pixels)
    store = progress_store or NoProgressStore()
    progress = load_progress(store, len(images), process_group)
    started -= progress.seconds
    stages = list_stages(suite, threat, searched)
    remaining = find_remaining(stages, progress)
    if example_store is not None:
        check_examples(example_store, progress)
    with GLOBAL_STATE, ready_for_attacks(model), collected_warnings() as collected:
        attacked = prepare_model(
            model,
            x,
            progress,
            suite.stages,
            searched=searched,
            optimize=optimize_model,
            process_group=process_group,
            freezer=freezer or Freezer(),
        )

        def save() -> None:
            progress.seconds = time.perf_counter() - started
            progress.warnings = unique([*progress.warnings, *collected()])
            progress.compiled |= attacked.search.is_compiled
            store.save(progress)

        runner = StageRunner(
            judge=attacked.in_float32.model,
            is_frozen=attacked.frozen.model is not model,
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
        for stage in remaining:
            if check_reliability and progress.is_before_attacks:
                add_doubts(runner, model, attacked, suite)
            run_stage(runner, stage, attacked)
        review_accuracies(suite, progress)
        seconds = time.perf_counter() - started
        outputs = None if output_store is None else keep_outputs(runner, suite, attacked.search)
    return conclude(
        runner,
        suite,
        stages,
        attacked,
        warnings=[*progress.warnings, *collected()],
        seconds=seconds,
        outputs=outputs,
    )


def run_stage(runner: StageRunner, stage: Stage, attacked: AttackedModel) -> None:
    """Run a stage on the survivors, or in float32 on those that an attack did not really fool."""
    progress = runner.progress
    if isinstance(stage, Recheck):
        unconfirmed = find_unconfirmed(progress)
        if len(unconfirmed):
            progress.rechecked = len(unconfirmed)
            runner.run(stage, attacked.in_float32, unconfirmed)
    else:
        is_clean = isinstance(stage, CleanPass)
        runner.run(stage, attacked.in_float32 if is_clean else attacked.search)


def add_doubts(
    runner: StageRunner, model: nn.Module, attacked: AttackedModel, suite: Suite
) -> None:
    """Check the model on rank 0, and add what makes attacks fail to the warnings of all ranks.

    Raises:
        UserCodeError: when the model raises.

    """
    progress, label = runner.progress, runner.label
    doubts: list[str] = []
    if runner.process_group.is_rank_zero:
        with calling_user_code(lambda raised: f"{label} {raised} when its gradients were checked."):
            doubts = assess_reliability(
                model,
                attacked=attacked.frozen.model,
                images=runner.images,
                clean=progress.survivors,
                suite=suite,
                threat=runner.threat,
            )
    doubts = runner.process_group.broadcast(doubts)
    progress.warnings = unique([*progress.warnings, *doubts])


def review_accuracies(suite: Suite, progress: Progress) -> None:
    """Let the attacks of a suite issue warnings based on the accuracy after each of them.

    Raises:
        UserCodeError: when the code of an attack raises.

    """
    n = len(progress.survivors)
    accuracies = {
        stage.name: stage.survivors / n for stage in progress.stages if stage.name != RECHECK
    }
    with calling_user_code(lambda raised: f"review of suite {suite.name} {raised}."):
        suite.review(accuracies)


def keep_outputs(runner: StageRunner, suite: Suite, search: Search) -> Outputs:
    """Return the outputs on all images, attacking those whose outputs are not saved yet."""
    assert runner.outputs is not None
    (stage,) = suite.stages
    attack_others(runner, stage, search, runner.outputs)
    batches = [batch for _, batch in runner.outputs.load()]
    return assemble_outputs(runner.images, batches, stage.name)


def conclude(
    runner: StageRunner,
    suite: Suite,
    stages: Sequence[Stage],
    attacked: AttackedModel,
    *,
    warnings: Sequence[str],
    seconds: float,
    outputs: Outputs | None,
) -> Evaluation:
    """Return the result of all ranks; `warnings` are those of this rank."""
    progress, group = runner.progress, runner.process_group
    assert progress.clean is not None
    texts = group.all_gather(list(warnings))
    adversarial = None
    if runner.examples is not None:
        x = to_float(runner.images.pixels).cpu()
        names = tuple(stage.name for stage in stages)
        adversarial = assemble(x, runner.examples.load(), names, robust=progress.survivors)
    return Evaluation(
        clean=progress.clean,
        robust=progress.survivors,
        stages=tuple(progress.stages[1:]),
        warnings=(*suite.left_out, *unique(text for of_rank in texts for text in of_rank)),
        folded=attacked.frozen.folded,
        compiled=any(group.all_gather(progress.compiled)),
        rechecked=progress.rechecked,
        repeated=len(progress.repeated),
        seconds=seconds,
        outputs=outputs,
        adversarial=adversarial,
    )
