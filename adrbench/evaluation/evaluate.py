"""Evaluation: a clean pass, then each stage of a suite on the survivors of the last.

The evaluation takes no attack's word: it checks that every adversarial image is inside the ball
and inside [0, 1], and judges for itself whether the model is fooled.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.autoattack import ReliabilityWarning
from adrbench.attacks.suites import Stage, Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.evaluation.progress import NoProgressStore, Progress, ProgressStore, begin, unique
from adrbench.models.frozen import FORMATS, Frozen, formats_for, freeze
from adrbench.models.graphed import GraphedModel
from adrbench.models.modes import in_mode, without_parameter_gradients
from adrbench.results.records import Stage as StageRecord
from adrbench.runtime.devices import IMAGE_FORMAT, full_precision
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

logger = logging.getLogger(__name__)

#: How far outside the ball float32 arithmetic may leave an image: a share of eps, and a rest.
RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-4, 1e-6

CLEAN = "clean"

#: (stage, images done, images of this stage, images still standing), at its start and after every
#: batch; of several processes each knows its own until the end of the stage.
OnBatch = Callable[[str, int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Verdicts in test-set order, (n,) booleans on the CPU, and what was seen on the way.

    `folded` says whether BatchNorm was folded away in the form of the model that was attacked;
    `seconds` counts what it took over all breaks.
    """

    clean: Tensor
    robust: Tensor
    stages: tuple[StageRecord, ...]
    warnings: tuple[str, ...]
    folded: bool
    seconds: float

    @property
    def clean_correct(self) -> int:
        """The number of images classified correctly as they are."""
        return int(self.clean.sum())

    @property
    def robust_correct(self) -> int:
        """The number of images that no stage could fool the model on."""
        return int(self.robust.sum())


class CleanPass:
    """The stage before all others: every image as it is."""

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
    on_batch: OnBatch = lambda stage, done, total, standing: None,
    many_passes: bool = False,
    progress_store: ProgressStore | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Attack `model` on `images`, on the device both are on, in float32.

    The attacks run on the frozen form of the model. With `many_passes` to come its memory format is
    chosen with more care, and on a GPU its passes are replayed as CUDA graphs where
    possible. The model itself comes back as it was, and so does torch's random state.

    After every batch the progress is saved in `progress_store`, from where an interrupted
    evaluation resumes. Every rank of
    `process_group` calls this and gets the whole evaluation; the ranks share the batches, which do
    not depend on how many ranks there are.
    """
    began = time.perf_counter()
    progress_store = progress_store or NoProgressStore()
    x = to_float(images.first(min(batch_size, len(images))).pixels)
    progress = process_group.broadcast(
        progress_store.load() if process_group.is_rank_zero else None
    ) or begin(len(images))
    earlier = progress.seconds
    left = (CleanPass(), *suite.stages)[len(progress.stages) :]
    if left and (progress.stages or progress.done):
        logger.info(f"resuming {progress.describe(left[0].name)}.")
    with (
        in_mode(model, training=False),
        without_parameter_gradients(model),
        full_precision(),
        collected_warnings() as seen,
    ):
        suite.inspect(model, x, images.labels[: len(x)])
        frozen = _freeze(model, x, _formats(x, progress.form, many_passes), process_group)
        progress.form = frozen.memory_format

        def keep() -> None:
            progress.seconds = earlier + time.perf_counter() - began
            progress.warnings = unique([*progress.warnings, *seen()])
            progress_store.save(progress)

        is_graphed = many_passes and x.is_cuda
        work = _Work(
            model=GraphedModel(frozen.model, x, len(x)) if is_graphed else frozen.model,
            images=images,
            threat=threat,
            batch_size=batch_size,
            progress=progress,
            on_batch=on_batch,
            keep=keep,
            process_group=process_group,
        )
        for stage in left:
            _run_stage(stage, work)
        suite.review({stage.name: stage.survivors / len(images) for stage in progress.stages})
    assert progress.clean is not None
    found = [
        text for texts in process_group.gather([*progress.warnings, *seen()]) for text in texts
    ]
    return Evaluation(
        clean=progress.clean,
        robust=progress.standing,
        stages=tuple(progress.stages[1:]),
        warnings=(*suite.left_out, *unique(found)),
        folded=frozen.folded,
        seconds=earlier + time.perf_counter() - began,
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every stage of an evaluation works with; `keep` keeps the progress."""

    model: nn.Module
    images: Images
    threat: ThreatModel
    batch_size: int
    progress: Progress
    on_batch: OnBatch
    keep: Callable[[], None]
    process_group: ProcessGroup


def _formats(x: Tensor, form: str, many_passes: bool) -> tuple[torch.memory_format, ...]:
    """Return the memory formats to try: that of an evaluation that goes on, if it does."""
    if form:
        return (FORMATS.get(form, IMAGE_FORMAT),)
    return formats_for(x) if many_passes else (IMAGE_FORMAT,)


def _freeze(
    model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format], process_group: ProcessGroup
) -> Frozen:
    """Freeze the model on every process in the memory format that the first one chooses."""
    frozen = freeze(model, x, formats) if process_group.is_rank_zero else None
    chosen = process_group.broadcast(frozen.memory_format if frozen else "")
    return frozen or freeze(model, x, (FORMATS.get(chosen, IMAGE_FORMAT),))


def _run_stage(stage: Stage, work: _Work) -> None:
    """Run what is left of a stage, and strike out those images it fools the model on."""
    progress = work.progress
    began = time.perf_counter() - progress.stage_seconds
    entered = progress.entered.nonzero().squeeze(1)
    batches = torch.split(entered, work.batch_size) if len(entered) else ()
    left = [number for number in range(len(batches)) if number not in progress.done]

    def report() -> None:
        done = sum(len(batches[number]) for number in progress.done)
        work.on_batch(stage.name, done, len(entered), int(progress.standing.sum()))

    if left:
        report()
    for number in work.process_group.distribute(left):
        progress.standing[batches[number]] = _survivors(stage, work, batches[number])
        progress.done.add(number)
        progress.stage_seconds = time.perf_counter() - began
        work.keep()
        if len(progress.done) < len(batches):
            report()
    progress.standing = work.process_group.all_true(progress.standing)
    progress.done = set(range(len(batches)))
    report()
    progress.finish_stage(stage.name)


def _survivors(stage: Stage, work: _Work, indices: Tensor) -> Tensor:
    """Tell for each of the images at `indices` whether it withstands a stage, (N,) on the CPU."""
    chosen = work.images.take(indices)
    x, y = to_float(chosen.pixels), chosen.labels
    x_adv = stage.perturb(work.model, x, y, indices.to(y.device))
    return ~fooled(work.model, work.threat, x, x_adv, y, attack=stage.name).cpu()


def fooled(
    model: nn.Module, threat: ThreatModel, x: Tensor, x_adv: Tensor, y: Tensor, *, attack: str
) -> Tensor:
    """Tell for each image whether `x_adv` is allowed and is misclassified, shape (N,)."""
    limit = threat.eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    in_range = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    allowed = in_range & (threat.distance(x, x_adv) <= limit)
    if not allowed.all():
        warnings.warn(
            ReliabilityWarning(
                f"{attack} left the allowed perturbations on some images: those were not counted."
            ),
            stacklevel=2,
        )
    with torch.no_grad():
        wrong: Tensor = model(x_adv).argmax(1) != y
    return allowed & wrong


@contextmanager
def collected_warnings() -> Iterator[Callable[[], list[str]]]:
    """Collect ReliabilityWarnings, whose texts the result tells; let other warnings through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ReliabilityWarning)

        def texts() -> list[str]:
            ours = [w for w in caught if issubclass(w.category, ReliabilityWarning)]
            return unique(str(w.message) for w in ours)

        yield texts
    for other in caught:
        if not issubclass(other.category, ReliabilityWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
