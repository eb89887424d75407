"""Training: the loop over epochs, who hears of it, and what chooses the best epoch."""

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from adrbench.attacks.suites import build_suite
from adrbench.checkpoint import LAST
from adrbench.config import AttackConfig, TrainConfig
from adrbench.datasets import Dataset, epoch_batches
from adrbench.errors import AdrbenchError
from adrbench.evaluation import evaluate
from adrbench.graphs import Losses
from adrbench.records import TrainRecord, write_atomically
from adrbench.runs import CONFIG, FILES, HistoryRow, Run, describe, prepare, resume, save
from adrbench.stepping import Stepper

VALIDATION_BATCH = 250


class Reporter(Protocol):
    """Who is told how a run goes."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, first_epoch: int) -> None:
        """Hear that training starts, or goes on at `first_epoch`."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Hear of a step; `values` has loss, lr, temperature and interpolation.

        The loss is the last that arrived from the device, which may be that of an earlier step.
        """

    def epoch(self, row: HistoryRow) -> None:
        """Hear of an epoch that is done, validated and saved."""

    def note(self, text: str) -> None:
        """Hear of something worth a line."""


class Silent:
    """Tells nobody."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, first_epoch: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Do nothing."""

    def epoch(self, row: HistoryRow) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
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
    stepper = Stepper(run, reporter.note)
    while not run.finished:
        reporter.epoch(run_epoch(run, stepper, reporter))
    return describe(run)


def run_epoch(run: Run, stepper: Stepper, reporter: Reporter) -> HistoryRow:
    """Train one epoch, validate, keep the best, save; return the epoch's history row."""
    config = run.config
    epoch = run.epochs_done + 1
    began = time.perf_counter()
    losses = take_steps(run, stepper, reporter)
    seconds = time.perf_counter() - began
    row: HistoryRow = {
        "epoch": epoch,
        "train_loss": losses.mean(),
        **run.scheduled(epoch * run.steps_per_epoch - 1),
        **validate(run),
        "images_per_second": run.steps_per_epoch * config.batch_size / seconds,
        "seconds": time.perf_counter() - began,
    }
    run.history.append(row)
    save(run, row)
    return row


def take_steps(run: Run, stepper: Stepper, reporter: Reporter) -> Losses:
    """Take the steps of the next epoch without waiting for the device on the way.

    Raises:
        AdrbenchError: soon after a loss is not finite, or at the end where the weights are not.

    """
    config = run.config
    epoch, first = run.epochs_done + 1, run.epochs_done * run.steps_per_epoch
    run.model.train()
    losses = Losses(run.steps_per_epoch, run.device)
    batches = epoch_batches(
        run.dataset.train,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        padding=config.crop_padding,
        flip=config.flip,
    )
    last_loss = math.nan
    for index, (x, y) in enumerate(batches):
        losses.record(stepper(x, y, first + index))
        for step, last_loss in losses.arrived():
            check_loss(run, last_loss, first + step)
        values = {"loss": last_loss, **run.scheduled(first + index)}
        reporter.step(epoch, index + 1, values)
    for step, loss in losses.arrived(wait=True):
        check_loss(run, loss, first + step)
    if not all(parameter.isfinite().all() for parameter in run.model.parameters()):
        raise AdrbenchError(f"the weights are not finite after {explain(run, first + index)}")
    return losses


def check_loss(run: Run, loss: float, step: int) -> None:
    """Raise AdrbenchError for a loss that is not finite, saying what to try."""
    if not math.isfinite(loss):
        raise AdrbenchError(f"the loss is {loss} at step {step} in {explain(run, step)}")


def explain(run: Run, step: int) -> str:
    """Return where in the run something stopped being finite, what is kept, and what to try."""
    done = run.epochs_done
    kept = f"{run.directory} keeps epoch {done}" if done else "no epoch was finished"
    return (
        f"epoch {done + 1} at learning rate {run.lr(step):g}: {kept}; try a lower --lr or "
        "--precision float32."
    )


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
