"""Evaluation: a clean pass, then each stage of a suite on the survivors of the last.

The evaluation takes no attack's word: it checks that every adversarial image is inside the ball
and inside [0, 1], and judges for itself whether the model is fooled.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.attacks.autoattack import ReliabilityWarning
from adrbench.attacks.suites import Stage, Suite
from adrbench.datasets import Images, to_float
from adrbench.devices import full_precision
from adrbench.inference import formats_for, freeze, is_folded
from adrbench.models.modes import in_mode, without_parameter_gradients
from adrbench.notes import Say
from adrbench.records import Stage as StageRecord
from adrbench.replayed import Replayed
from adrbench.threat import ThreatModel

#: How far outside the ball float32 arithmetic may leave an image: a share of eps, and a rest.
RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-4, 1e-6

CLEAN = "clean"

#: (stage, images done, images of this stage, images still standing), at its start and after every
#: batch.
OnBatch = Callable[[str, int, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Verdicts in test-set order, (n,) booleans on the CPU, and what was seen on the way.

    `folded` says whether BatchNorm was folded away in the form of the model that was attacked.
    """

    clean: Tensor
    robust: Tensor
    stages: tuple[StageRecord, ...]
    warnings: tuple[str, ...]
    folded: bool

    @property
    def clean_correct(self) -> int:
        """The number of images classified correctly as they are."""
        return int(self.clean.sum())

    @property
    def robust_correct(self) -> int:
        """The number of images that no stage could fool the model on."""
        return int(self.robust.sum())


def evaluate(
    model: nn.Module,
    images: Images,
    suite: Suite,
    threat: ThreatModel,
    *,
    batch_size: int,
    on_batch: OnBatch = lambda stage, done, total, standing: None,
    many_passes: bool = False,
    say: Say = lambda text: None,
) -> Evaluation:
    """Attack `model` on `images`, on the device both are on, in float32.

    The attacks run on the frozen form of the model. With `many_passes` to come its memory format is
    chosen with more care, and on a GPU its passes are replayed as CUDA graphs; `say` hears where
    that cannot be done. The model itself comes back as it was, and so does torch's random state.
    """
    first = images.first(min(batch_size, len(images)))
    x = to_float(first.pixels)
    with (
        in_mode(model, training=False),
        without_parameter_gradients(model),
        full_precision(),
        collected_warnings() as seen,
    ):
        suite.inspect(model, x, first.labels)
        attacked = freeze(model, x, formats_for(x)) if many_passes else freeze(model, x)
        folded = is_folded(attacked)
        if many_passes and x.is_cuda:
            attacked = Replayed(attacked, x, len(x), say)
        standing = _clean_verdicts(attacked, images, batch_size, on_batch)
        clean = standing.clone()
        accuracies = {CLEAN: _share(standing)}
        stages = []
        for stage in suite.stages:
            began = time.perf_counter()
            _run_stage(
                stage,
                attacked,
                images,
                threat,
                standing=standing,
                batch_size=batch_size,
                on_batch=on_batch,
            )
            accuracies[stage.name] = _share(standing)
            stages.append(
                StageRecord(
                    name=stage.name,
                    survivors=int(standing.sum()),
                    seconds=time.perf_counter() - began,
                )
            )
        suite.review(accuracies)
    return Evaluation(
        clean=clean.cpu(),
        robust=standing.cpu(),
        stages=tuple(stages),
        warnings=(*suite.left_out, *seen),
        folded=folded,
    )


def _clean_verdicts(model: nn.Module, images: Images, batch_size: int, on_batch: OnBatch) -> Tensor:
    correct = torch.zeros_like(images.labels, dtype=torch.bool)
    everything = torch.arange(len(images), device=correct.device)
    for start in range(0, len(images), batch_size):
        indices = everything[start : start + batch_size]
        with torch.no_grad():
            predicted = model(to_float(images.pixels[indices])).argmax(1)
        correct[indices] = predicted == images.labels[indices]
        on_batch(CLEAN, start + len(indices), len(images), int(correct.sum()))
    return correct


def _run_stage(
    stage: Stage,
    model: nn.Module,
    images: Images,
    threat: ThreatModel,
    *,
    standing: Tensor,
    batch_size: int,
    on_batch: OnBatch,
) -> None:
    """Run one stage on the images still `standing`, and strike out those it fools."""
    survivors = standing.nonzero().squeeze(1)
    on_batch(stage.name, 0, len(survivors), len(survivors))
    for start in range(0, len(survivors), batch_size):
        indices = survivors[start : start + batch_size]
        x, y = to_float(images.pixels[indices]), images.labels[indices]
        x_adv = stage.perturb(model, x, y, indices)
        standing[indices] = ~fooled(model, threat, x, x_adv, y, attack=stage.name)
        on_batch(stage.name, start + len(indices), len(survivors), int(standing.sum()))


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


def _share(standing: Tensor) -> float:
    return float(standing.sum()) / len(standing)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the text of each ReliabilityWarning once; let other warnings through after."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ReliabilityWarning)
        try:
            yield texts
        finally:
            ours = [w for w in caught if issubclass(w.category, ReliabilityWarning)]
            texts.extend(dict.fromkeys(str(w.message) for w in ours))
    for other in caught:
        if other not in ours:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
