"""The stages of an evaluation, batch by batch: attack, judge, record the outcomes, save."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from adrbench.attacks.predictions import is_correct
from adrbench.attacks.stages import Stage
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import NonFiniteLogitsError, is_out_of_memory
from adrbench.evaluation.adversarial import BatchExamples, select_examples
from adrbench.evaluation.batch_files import BatchStore
from adrbench.evaluation.judge import Judged, judge
from adrbench.evaluation.outputs import BatchOutputs
from adrbench.evaluation.progress import Progress
from adrbench.evaluation.search import Search
from adrbench.models.chunked import ChunkedModel
from adrbench.models.modes import restored_buffers
from adrbench.printable import get_logger
from adrbench.registry import UserCodeError, calling_user_code
from adrbench.runtime.arithmetic import searching_in
from adrbench.runtime.process_group import ProcessGroup

logger = get_logger(__name__)

T = TypeVar("T")

#: (stage, images done, images that entered the stage, survivors so far), called at the start of a
#: stage and after every batch; a rank counts its own batches until the end of the stage.
OnBatch = Callable[[str, int, int, int], None]
#: (stage, forward passes on the batch so far, the most that the attack makes or 0 where unknown,
#: images in the batch), called after every forward pass of an attack.
OnPass = Callable[[str, int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ProgressCallbacks:
    """What an evaluation calls to display its progress; by default, nothing."""

    on_batch: OnBatch = lambda *counts: None
    on_pass: OnPass = lambda *counts: None


SILENT = ProgressCallbacks()


@dataclass(frozen=True, kw_only=True)
class StageRunner:
    """Runs stages one after the other on the survivors in `progress`, calling `save` per batch.

    Outcomes are judged by `judge`, the model in float32. `is_frozen` is false for a model that
    could not be copied, such as a randomized one, whose passes may differ for other reasons than
    rounding.
    """

    judge: ChunkedModel
    is_frozen: bool
    label: str
    num_classes: int | None
    suite: str
    images: Images
    threat: ThreatModel
    batch_size: int
    progress: Progress
    callbacks: ProgressCallbacks
    examples: BatchStore[BatchExamples] | None
    outputs: BatchStore[BatchOutputs] | None
    save: Callable[[], None]
    process_group: ProcessGroup

    def run(self, stage: Stage, search: Search, indices: Tensor | None = None) -> None:
        """Run the batches of a stage that are not done, and remove the images it fools.

        It attacks the model of `search`, on the survivors of the last stage, or only on those of
        them at `indices` (K,).

        Raises:
            NonFiniteLogitsError: where the stage is the clean pass.

        """
        progress = self.progress
        started = time.perf_counter() - progress.stage_seconds
        entered = progress.entered.nonzero().squeeze(1) if indices is None else indices
        batches = torch.split(entered, self.batch_size) if len(entered) else ()
        progress.check_batches(batches, stage.name)
        remaining = [index for index in range(len(batches)) if index not in progress.done]

        def report() -> None:
            num_done = sum(len(batches[index]) for index in progress.done)
            num_survivors = int(progress.survivors.sum())
            self.callbacks.on_batch(stage.name, num_done, len(entered), num_survivors)

        if remaining:
            report()
        for index in self.process_group.claim(remaining):
            self._run_batch(stage, search, index, batches[index])
            progress.done.add(index)
            progress.stage_seconds = time.perf_counter() - started
            self.save()
            if len(progress.done) < len(batches):
                report()
        progress.survivors = self.process_group.all_reduce_and(progress.survivors)
        progress.nonfinite = set().union(*self.process_group.all_gather(progress.nonfinite))
        progress.unconfirmed = set().union(*self.process_group.all_gather(progress.unconfirmed))
        progress.repeated = set().union(*self.process_group.all_gather(progress.repeated))
        progress.done = set(range(len(batches)))
        report()
        if progress.nonfinite:
            self._report_nonfinite(stage, len(entered))
        progress.finish_stage(stage.name)

    def _run_batch(self, stage: Stage, search: Search, index: int, indices: Tensor) -> None:
        """Run a stage on its batch `index`, the images at `indices` (N,); record the outcomes."""
        batch = self.images.take(indices)
        x, y = to_float(batch.pixels), batch.labels

        def compute() -> tuple[Tensor, Judged, Tensor]:
            x_adv = self.attack(stage, search, x, y, indices.to(y.device))
            judged = self._judge(stage, x, x_adv, y)
            return x_adv, judged, self._find_unconfirmed(stage, search, x_adv, y, judged)

        repeated_before = search.repeated
        x_adv, judged, is_unconfirmed = self.within_memory(search, len(x), compute)
        if search.repeated > repeated_before:
            self._note_repeated(stage, search, indices)
        survives, is_nonfinite = torch.stack([judged.survives, judged.is_nonfinite]).cpu()
        self.progress.survivors[indices] = survives
        self.progress.nonfinite.update(indices[is_nonfinite].tolist())
        self.progress.unconfirmed.update(indices[is_unconfirmed.cpu()].tolist())
        if self.examples is not None:
            examples = select_examples(
                x,
                x_adv,
                indices=indices,
                allowed=judged.is_allowed,
                survives=judged.survives,
                logits=judged.logits,
                labels=y,
            )
            self.examples.save(len(self.progress.stages), index, examples)
        if self.outputs is not None and getattr(stage, "perturb_maximizes", False):
            outputs = BatchOutputs.of(
                x,
                x_adv,
                indices=indices,
                allowed=judged.is_allowed,
                clean_logits=self.within_memory(
                    search, len(x), lambda: self.compute_logits(stage, x)
                ),
                logits=judged.logits,
            )
            self.outputs.save(len(self.progress.stages), index, outputs)

    def within_memory(self, search: Search, batch_size: int, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, in smaller chunks of the passes where memory is short."""
        while True:
            try:
                return compute()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not self._shrink(search, batch_size):
                    raise
            self._report_memory(search)

    def attack(self, stage: Stage, search: Search, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return the examples of a stage for a batch, (N, C, H, W) like `x`.

        Raises:
            UserCodeError: when the code of the stage or of the model raises, or the stage does not
                return images like `x`.

        """
        expected = getattr(stage, "num_passes", 0)
        attacked = _AttackedModel(
            search.model, lambda done: self.callbacks.on_pass(stage.name, done, expected, len(x))
        )
        with self._calling(stage), searching_in(search.arithmetic):
            with restored_buffers(attacked):  # an attack may change them, and the mode
                x_adv = stage.perturb(attacked.eval(), x.clone(), y.clone(), indices.clone())
            attacked.eval()
            if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
                shape = tuple(getattr(x_adv, "shape", ()))
                raise UserCodeError(
                    f"attack {stage.name} of suite {self.suite} returned a {type(x_adv).__name__} "
                    f"of shape {shape}: it must return images of the shape that it "
                    f"receives, {tuple(x.shape)}."
                )
            return x_adv.detach().to(x)

    def compute_logits(self, stage: Stage, x: Tensor) -> Tensor:
        """Return the logits in float32, (N, num_classes), of images of a stage."""
        with self._calling(stage), torch.no_grad():
            logits: Tensor = self.judge(x)
        return logits

    def _judge(self, stage: Stage, x: Tensor, x_adv: Tensor, y: Tensor) -> Judged:
        """Return the outcomes of the examples of a stage, in float32."""
        with self._calling(stage):
            return judge(
                self.judge,
                self.threat,
                x,
                x_adv,
                y,
                attack=stage.name,
                label=self.label,
                num_classes=self.num_classes,
            )

    def _find_unconfirmed(
        self, stage: Stage, search: Search, x_adv: Tensor, y: Tensor, judged: Judged
    ) -> Tensor:
        """Return which examples fool the model of the search, but not the judge, (N,)."""
        if search.model is self.judge or not self.is_frozen:
            return torch.zeros_like(judged.survives)
        with self._calling(stage), searching_in(search.arithmetic), torch.no_grad():
            return judged.survives & judged.is_allowed & ~is_correct(search.model(x_adv), y)

    def _calling(self, stage: Stage) -> AbstractContextManager[None]:
        return calling_user_code(
            lambda raised: f"attack {stage.name} of suite {self.suite} on {self.label} {raised}."
        )

    def _shrink(self, search: Search, batch_size: int) -> bool:
        """Halve the chunks of the passes; return whether that was possible."""
        is_shrunk = self.judge.shrink(batch_size)
        return is_shrunk if search.model is self.judge else search.model.shrink(batch_size)

    def _report_memory(self, search: Search) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning(
            f"there is not enough memory for a whole batch: the model processes "
            f"{search.model.size} images at a time; the batch size of the attack does not change."
        )

    def _note_repeated(self, stage: Stage, search: Search, indices: Tensor) -> None:
        """Keep which images were in a batch with repeated passes, and report the first batch."""
        if not self.progress.repeated:
            logger.warning(
                f"under {stage.name} the model has logits or gradients in {search.arithmetic} that "
                "are not finite: such passes are repeated in float32, which takes longer."
            )
        self.progress.repeated.update(indices.tolist())

    def _report_nonfinite(self, stage: Stage, num_entered: int) -> None:
        count = len(self.progress.nonfinite)
        if self.progress.clean is None:
            raise NonFiniteLogitsError(self.label, self.suite, count=count, n=num_entered)
        self.progress.warnings.append(
            f"under {stage.name} the logits of {count:,} of {num_entered:,} images were not finite "
            "(NaN or infinity): these images count as not robust."
        )


class _AttackedModel(nn.Module):
    """The model that attacks call; `on_pass` receives the number of forward passes after each.

    Logits that do not depend on the images according to autograd get a gradient of zero, since
    gradient attacks would otherwise raise errors.
    """

    def __init__(self, model: nn.Module, on_pass: Callable[[int], None]) -> None:
        super().__init__()
        self.model = model
        self.on_pass = on_pass
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor = self.model(x)
        self.passes += 1
        self.on_pass(self.passes)
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        return logits
