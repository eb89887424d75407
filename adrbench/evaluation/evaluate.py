"""Evaluation: a clean pass, then each stage of a suite on the survivors of the last.

Attacks are not trusted: the evaluation itself checks that every adversarial image is inside the
ball and inside [0, 1], and judges whether the model is fooled.
"""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from adrbench.attacks.predictions import is_correct, is_finite
from adrbench.attacks.reliability_warnings import ReliabilityWarning, collected_warnings
from adrbench.attacks.suites import Stage, Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import NonFiniteLogitsError
from adrbench.evaluation.progress import NoProgressStore, Progress, ProgressStore, begin, unique
from adrbench.evaluation.reliability import assess_reliability
from adrbench.models.frozen import FORMATS, Frozen, formats_for, freeze
from adrbench.models.graphed import GraphedModel
from adrbench.models.modes import in_mode, without_parameter_gradients
from adrbench.results.records import StageResult
from adrbench.runtime.devices import IMAGE_FORMAT, full_precision
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

logger = logging.getLogger(__name__)

#: How far outside the ball float32 rounding may put an image: relative to eps, and absolute.
RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-4, 1e-6

CLEAN = "clean"

#: (stage, images done, images that entered the stage, survivors so far), called at the start of a
#: stage and after every batch; a rank counts its own batches until the end of the stage.
OnBatch = Callable[[str, int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of an evaluation of n images.

    `clean` and `robust` are per-example outcomes in test-set order, (n,) booleans on the CPU.
    `folded` is whether BatchNorm was folded into convolutions in the model that was attacked, and
    `seconds` the time taken over all sessions.
    """

    clean: Tensor
    robust: Tensor
    stages: tuple[StageResult, ...]
    warnings: tuple[str, ...]
    folded: bool
    seconds: float

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
    on_batch: OnBatch = lambda stage, done, total, survivors: None,
    label: str = "the model",
    check_reliability: bool = True,
    optimize_model: bool = False,
    progress_store: ProgressStore | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Attack `model` on `images`, on the device both are on, in float32.

    A logit that is not finite is never a success of the model: attacked images with one count as
    not robust, with a warning. `label` names the model in messages. After the clean pass the model
    is checked on a few images for what makes attacks fail, unless `check_reliability` is false.

    The attacks run on the frozen form of the model. `optimize_model` spends time on making that
    form fast, which pays off over many batches: its memory format is chosen with more care, and
    on a GPU its passes are replayed as CUDA graphs where possible. The model itself is returned
    to its state before the call, and so is torch's random state.

    After every batch the progress is saved in `progress_store`, from which an interrupted
    evaluation resumes. Every rank of `process_group` calls this and returns the whole evaluation;
    the ranks share the batches, which do not depend on the number of ranks.

    Raises:
        NonFiniteLogitsError: after the clean pass, on all ranks, if a logit was not finite there.

    """
    started = time.perf_counter()
    progress_store = progress_store or NoProgressStore()
    x = to_float(images.first(min(batch_size, len(images))).pixels)
    progress = process_group.broadcast(
        progress_store.load() if process_group.is_rank_zero else None
    ) or begin(len(images))
    earlier_seconds = progress.seconds
    stages = (CleanPass(), *suite.stages)[len(progress.stages) :]
    if stages and progress.has_begun:
        logger.info(f"resuming {progress.describe(stages[0].name)}.")
    with (
        in_mode(model, training=False),
        without_parameter_gradients(model),
        full_precision(),
        collected_warnings() as collected,
    ):
        frozen = _freeze_alike(model, x, progress.memory_format, optimize_model, process_group)
        progress.memory_format = frozen.memory_format

        def save() -> None:
            progress.seconds = earlier_seconds + time.perf_counter() - started
            progress.warnings = unique([*progress.warnings, *collected()])
            progress_store.save(progress)

        is_graphed = optimize_model and x.is_cuda
        runner = _StageRunner(
            model=GraphedModel(frozen.model, x, len(x)) if is_graphed else frozen.model,
            label=label,
            suite=suite.name,
            images=images,
            threat=threat,
            batch_size=batch_size,
            progress=progress,
            on_batch=on_batch,
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
                doubts = process_group.broadcast(assess() if process_group.is_rank_zero else [])
                progress.warnings = unique([*progress.warnings, *doubts])
            runner.run(stage)
        suite.review({stage.name: stage.survivors / len(images) for stage in progress.stages})
    assert progress.clean is not None
    texts = process_group.all_gather([*progress.warnings, *collected()])
    return Evaluation(
        clean=progress.clean,
        robust=progress.survivors,
        stages=tuple(progress.stages[1:]),
        warnings=(*suite.left_out, *unique(text for of_rank in texts for text in of_rank)),
        folded=frozen.folded,
        seconds=earlier_seconds + time.perf_counter() - started,
    )


def _freeze_alike(
    model: nn.Module,
    x: Tensor,
    resumed_format: str,
    optimize_model: bool,
    process_group: ProcessGroup,
) -> Frozen:
    """Freeze the model on every rank, in the memory format that rank 0 chooses.

    A resumed evaluation keeps the format that it began with.
    """
    if resumed_format:
        formats: Sequence[torch.memory_format] = (FORMATS.get(resumed_format, IMAGE_FORMAT),)
    else:
        formats = formats_for(x) if optimize_model else (IMAGE_FORMAT,)
    frozen = freeze(model, x, formats) if process_group.is_rank_zero else None
    chosen = process_group.broadcast(frozen.memory_format if frozen else "")
    return frozen or freeze(model, x, (FORMATS.get(chosen, IMAGE_FORMAT),))


@dataclass(frozen=True, kw_only=True)
class _StageRunner:
    """Runs stages one after the other on the survivors in `progress`, calling `save` per batch."""

    model: nn.Module
    label: str
    suite: str
    images: Images
    threat: ThreatModel
    batch_size: int
    progress: Progress
    on_batch: OnBatch
    save: Callable[[], None]
    process_group: ProcessGroup

    def run(self, stage: Stage) -> None:
        """Run the batches of a stage that are not done, and remove the images it fools.

        Raises:
            NonFiniteLogitsError: where the stage is the clean pass.

        """
        progress = self.progress
        started = time.perf_counter() - progress.stage_seconds
        entered = progress.entered.nonzero().squeeze(1)
        batches = torch.split(entered, self.batch_size) if len(entered) else ()
        remaining = [index for index in range(len(batches)) if index not in progress.done]

        def report() -> None:
            num_done = sum(len(batches[index]) for index in progress.done)
            self.on_batch(stage.name, num_done, len(entered), int(progress.survivors.sum()))

        if remaining:
            report()
        for index in self.process_group.claim(remaining):
            self._run_batch(stage, batches[index])
            progress.done.add(index)
            progress.stage_seconds = time.perf_counter() - started
            self.save()
            if len(progress.done) < len(batches):
                report()
        progress.survivors = self.process_group.all_reduce_and(progress.survivors)
        progress.nonfinite = set().union(*self.process_group.all_gather(progress.nonfinite))
        progress.done = set(range(len(batches)))
        report()
        if progress.nonfinite:
            self._report_nonfinite(stage, len(entered))
        progress.finish_stage(stage.name)

    def _run_batch(self, stage: Stage, indices: Tensor) -> None:
        """Run a stage on the images at `indices` (N,), and note the outcomes."""
        batch = self.images.take(indices)
        x, y = to_float(batch.pixels), batch.labels
        x_adv = stage.perturb(self.model, x, y, indices.to(y.device))
        outcomes = judge(self.model, self.threat, x, x_adv, y, attack=stage.name)
        survives, is_nonfinite = torch.stack(outcomes).cpu()
        self.progress.survivors[indices] = survives
        self.progress.nonfinite.update(indices[is_nonfinite].tolist())

    def _report_nonfinite(self, stage: Stage, num_entered: int) -> None:
        count = len(self.progress.nonfinite)
        if self.progress.clean is None:
            raise NonFiniteLogitsError(self.label, self.suite, count=count, n=num_entered)
        self.progress.warnings.append(
            f"under {stage.name} the logits of {count:,} of {num_entered:,} images were not finite "
            "(NaN or infinity): these images count as not robust."
        )


def judge(
    model: nn.Module, threat: ThreatModel, x: Tensor, x_adv: Tensor, y: Tensor, *, attack: str
) -> tuple[Tensor, Tensor]:
    """Return which images survive as `x_adv` (N, C, H, W), and which logits are not finite, (N,).

    An image survives if `x_adv` is classified correctly, with finite logits, or is outside the
    threat model, of which a warning names the `attack`.
    """
    limit = threat.eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    in_range = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    is_allowed = in_range & (threat.distance(x, x_adv) <= limit)
    if not is_allowed.all():
        warnings.warn(
            ReliabilityWarning(
                f"{attack} returned images outside the threat model: they count as robust."
            ),
            stacklevel=2,
        )
    with torch.no_grad():
        logits = model(x_adv)
    return ~is_allowed | is_correct(logits, y), is_allowed & ~is_finite(logits)
