"""Training: one step as the method reads, the epoch loop, and what chooses the best epoch."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adrbench import seeds
from adrbench.attacks.suites import build_suite
from adrbench.checkpoint import LAST
from adrbench.config import AttackConfig, TrainConfig
from adrbench.datasets import Dataset, epoch_batches
from adrbench.devices import full_precision
from adrbench.errors import AdrbenchError
from adrbench.evaluation import evaluate
from adrbench.methods.build import Slots
from adrbench.records import TrainRecord, write_atomically
from adrbench.runs import CONFIG, FILES, HistoryRow, Run, describe, prepare, resume, save

VALIDATION_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step made on the way: `loss` a scalar, `targets` (N, C), `x_adv` as `x`."""

    loss: Tensor
    targets: Tensor
    x_adv: Tensor


def train_step(
    model: nn.Module,
    slots: Slots,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    step: int,
    arithmetic: AbstractContextManager[Any] | None = None,
) -> StepResult:
    """Take one optimisation step on images `x` (N, C, H, W) of labels `y` (N,).

    The passes run under `arithmetic`, the optimizer and the average in full precision.

    Raises:
        AdrbenchError: when the loss is not finite; the parameters are then as before the step.

    """
    with arithmetic or nullcontext():
        targets = slots.targets(x, y, step)
        x_adv = slots.objective.craft(model, x, targets)
        loss = slots.perturbation.backward(
            model, lambda: slots.objective.loss(model, x, x_adv, targets)
        )
    if not torch.isfinite(loss):
        raise AdrbenchError(f"the loss is {float(loss)} at step {step}")
    optimizer.step()
    slots.averaging.update(model)
    return StepResult(loss=loss, targets=targets, x_adv=x_adv)


class Reporter(Protocol):
    """Who is told how a run goes."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, first_epoch: int) -> None:
        """Hear that training starts, or goes on at `first_epoch`."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Hear of a step; `values` has loss (a tensor), lr, temperature and interpolation."""

    def epoch(self, row: HistoryRow) -> None:
        """Hear of an epoch that is done, validated and saved."""


class Silent:
    """Tells nobody."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, first_epoch: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Do nothing."""

    def epoch(self, row: HistoryRow) -> None:
        """Do nothing."""


def train(
    config: TrainConfig,
    dataset: Dataset,
    directory: Path,
    *,
    device: torch.device,
    force: bool = False,
    reporter: Reporter | None = None,
) -> TrainRecord:
    """Train as `config` says into `directory`, going on where an earlier call was stopped.

    Returns the record of the whole run, at once when it was finished before. `force` starts
    over.

    Raises:
        AdrbenchError: when the directory holds another run, or the loss stops being finite.
        DataError: when the training part is smaller than one batch.

    """
    reporter = reporter or Silent()
    run = prepare(config, dataset, directory, device)
    if force:
        for name in FILES:
            (directory / name).unlink(missing_ok=True)
    elif (directory / LAST).exists():
        resume(run)
    if not run.finished:
        content = json.dumps(config.to_json(), indent=1) + "\n"
        write_atomically(directory / CONFIG, content.encode())
        reporter.begin(config, run.steps_per_epoch, run.epochs_done + 1)
    while not run.finished:
        reporter.epoch(run_epoch(run, reporter))
    return describe(run)


def run_epoch(run: Run, reporter: Reporter) -> HistoryRow:
    """Train one epoch, validate, keep the best, save; return the epoch's history row."""
    config = run.config
    epoch = run.epochs_done + 1
    began = time.perf_counter()
    run.model.train()
    total = torch.zeros((), device=run.device)
    first = run.epochs_done * run.steps_per_epoch
    batches = epoch_batches(
        run.dataset.train,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        padding=config.crop_padding,
        flip=config.flip,
    )
    for step, (x, y) in enumerate(batches, start=first):
        values = {"lr": run.lr(step), **run.slots.targets.annealed(step)}
        for group in run.optimizer.param_groups:
            group["lr"] = values["lr"]
        run.noise.manual_seed(seeds.derive_seed(config.seed, "noise", step))
        loss = checked_step(run, x, y, step)
        total += loss
        reporter.step(epoch, step - first + 1, {"loss": loss, **values})
    if not all(parameter.isfinite().all() for parameter in run.model.parameters()):
        raise AdrbenchError(f"the weights are not finite after {explain(run)}")
    seconds = time.perf_counter() - began
    row: HistoryRow = {
        "epoch": epoch,
        "train_loss": float(total) / run.steps_per_epoch,
        **values,
        **validate(run),
        "images_per_second": run.steps_per_epoch * config.batch_size / seconds,
        "seconds": time.perf_counter() - began,
    }
    run.history.append(row)
    save(run, row)
    return row


def checked_step(run: Run, x: Tensor, y: Tensor, step: int) -> Tensor:
    """Take one step in the precision of the run; say what to try when the loss is not finite."""
    try:
        return train_step(
            run.model, run.slots, run.optimizer, x, y, step=step, arithmetic=arithmetic(run)
        ).loss
    except AdrbenchError as error:
        raise AdrbenchError(f"{error} in {explain(run)}") from error


def explain(run: Run) -> str:
    """Return where in the run something stopped being finite, what is kept, and what to try."""
    lr, done = run.optimizer.param_groups[0]["lr"], run.epochs_done
    kept = f"{run.directory} keeps epoch {done}" if done else "no epoch was finished"
    return (
        f"epoch {done + 1} at learning rate {lr:g}: {kept}; try a lower --lr or "
        "--precision float32."
    )


def arithmetic(run: Run) -> AbstractContextManager[Any]:
    """Return what a step runs under: float32 without TF32, or bfloat16 with float32 weights.

    The cache of converted weights is off because AWP changes the weights within a step.
    """
    if run.config.precision == "float32":
        return full_precision()
    return torch.autocast(run.device.type, dtype=torch.bfloat16, cache_enabled=False)


def validate(run: Run) -> HistoryRow:
    """Count clean and PGD accuracy of each set of weights on the split that chooses the best.

    The attack is that of training, with noise drawn per image, the same in every epoch.
    """
    images = run.dataset.val if run.config.select == "val" else run.dataset.test
    threat = run.config.threat_model()
    attack = AttackConfig(
        suite=f"pgd-{run.config.steps}",
        threat_model=threat,
        alpha=run.config.alpha,
        batch_size=VALIDATION_BATCH,
        seed=run.config.seed,
    )
    suite = build_suite(attack, run.dataset.num_classes)
    row: HistoryRow = {
        "select": run.config.select,
        "select_n": len(images),
        "criterion": run.slots.objective.criterion,
    }
    for weights, model in run.models().items():
        verdicts = evaluate(model, images, suite, threat, batch_size=attack.batch_size)
        row[f"{weights}_clean_correct"] = verdicts.clean_correct
        row[f"{weights}_robust_correct"] = verdicts.robust_correct
    return row
