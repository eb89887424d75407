"""The parts of adrbench that the benchmarks time, called as its command line calls them."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.config.settings import AttackConfig, TrainConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Dataset, Images
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.models.frozen import ModelFreezer, formats_for, freeze
from adrbench.models.graphed import GraphedModel
from adrbench.models.refill import RefillingFreezer
from adrbench.results.history import HistoryRow
from adrbench.runtime.arithmetic import Arithmetic, Precision
from adrbench.runtime.context import Context
from adrbench.training.callbacks import Callbacks, NoCallbacks
from adrbench.training.checkpointer import Checkpointer
from adrbench.training.loop import run_epoch
from adrbench.training.state import Run, build_state, prepare_run
from adrbench.training.step import Stepper

#: The arithmetics that are compared by default.
ARITHMETICS: tuple[Arithmetic, ...] = ("float32", "bfloat16")


def new_run(
    config: TrainConfig,
    precision: Precision,
    dataset: Dataset,
    directory: Path,
    device: torch.device,
) -> Run:
    """Return a new run in `precision`, prepared as `adrbench train` does."""
    config = replace(config, precision=precision)
    return prepare_run(config, dataset, directory / precision, Context(device=device))


def make_step(run: Run) -> Stepper:
    """Return a function of images (N, C, H, W), labels (N,) and step that trains; the loss."""
    return Stepper(run, build_state(run))


def make_epoch(
    run: Run, step: Stepper, callbacks: Callbacks | None = None
) -> Callable[[], HistoryRow]:
    """Return a function that trains, validates and saves an epoch; `step` is from `make_step`."""
    checkpointer = Checkpointer(run, save_seconds=math.inf)
    callbacks, freezer = callbacks or NoCallbacks(), RefillingFreezer()
    return lambda: run_epoch(run, step.state, step, checkpointer, callbacks, freezer=freezer)


def make_attacked(model: nn.Module, x: Tensor) -> nn.Module:
    """Return the form of a model that an evaluation attacks, for batches like `x` (N, C, H, W)."""
    frozen = freeze(model, x, formats_for(x)).model
    return GraphedModel(frozen, x, len(x)) if x.is_cuda else frozen


def run_suite(
    model: nn.Module,
    images: Images,
    name: str,
    threat: ThreatModel,
    batch_size: int,
    *,
    searched: Arithmetic = "float32",
    freezer: ModelFreezer | None = None,
) -> Evaluation:
    """Evaluate a model of ten classes as `adrbench attack` does."""
    config = AttackConfig(suite=name, batch_size=batch_size, seed=0)
    suite = build_suite(config, threat, num_classes=10)
    return evaluate(
        model,
        images,
        suite,
        threat,
        batch_size=batch_size,
        optimize_model=True,
        searched=searched,
        freezer=freezer,
    )
