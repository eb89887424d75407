"""adrbench as the benchmarks call it: the one place to change when its interface does."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from adrbench.attacks.suites import build_suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Images
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.models.frozen import formats_for, freeze
from adrbench.models.graphed import GraphedModel
from adrbench.runtime.signals import StopRequest
from adrbench.training.loop import NoCallbacks, run_epoch
from adrbench.training.saving import Saver
from adrbench.training.state import Run
from adrbench.training.step import Stepper

Step = Callable[[Tensor, Tensor, int], Tensor]


def make_step(run: Run) -> Step:
    """Return what takes a step of the run: images (N, C, H, W), labels (N,), step; the loss."""
    return Stepper(run)


def make_epoch(run: Run, step: Step) -> Callable[[], object]:
    """Return what trains, validates and saves the next epoch; `step` is from `make_step`."""
    assert isinstance(step, Stepper)
    saver = Saver(run, math.inf, StopRequest())
    return lambda: run_epoch(run, step, NoCallbacks(), saver)


def make_attacked(model: nn.Module, x: Tensor) -> nn.Module:
    """Return the form of a model that an evaluation attacks, for batches like `x` (N, C, H, W)."""
    frozen = freeze(model, x, formats_for(x)).model
    return GraphedModel(frozen, x, len(x)) if x.is_cuda else frozen


def run_suite(
    model: nn.Module, images: Images, name: str, threat: ThreatModel, batch_size: int
) -> Evaluation:
    """Evaluate a model of ten classes as `adrbench attack` does."""
    config = AttackConfig(suite=name, batch_size=batch_size, seed=0)
    suite = build_suite(config, threat, num_classes=10)
    return evaluate(model, images, suite, threat, batch_size=batch_size, optimize_model=True)
