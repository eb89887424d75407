"""Training: one step as the method reads, the epoch loop, the choice of the best, resuming.

Every random draw of a run is a function of the seed and of the position in the run, so a state
needs no generator inside and a resumed run ends in the weights of one that never stopped.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adrbench import checkpoint as checkpoints
from adrbench import seeds
from adrbench.attacks.suites import build_suite
from adrbench.checkpoint import Checkpoint, ModelShape, Snapshot
from adrbench.config import AttackConfig, TrainConfig, flag
from adrbench.datasets import Dataset, Images, epoch_batches, steps_per_epoch
from adrbench.errors import AdrbenchError, CheckpointError
from adrbench.evaluation import evaluate
from adrbench.methods.build import Slots, build_method
from adrbench.models import build_model
from adrbench.provenance import describe_device, describe_software, now
from adrbench.records import TrainRecord, write_atomically
from adrbench.schedules import Schedule, steps

CONFIG, HISTORY = "config.json", "history.jsonl"
VALIDATION_BATCH = 250

HistoryRow = dict[str, Any]


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
    autocast: Callable[[], AbstractContextManager[Any]] | None = None,
) -> StepResult:
    """Take one optimisation step on images `x` (N, C, H, W) of labels `y` (N,).

    Raises:
        AdrbenchError: when the loss is not finite; the weights are then as before the step.

    """
    with autocast() if autocast else nullcontext():
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


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """What changes with the step; ADR's two are None without ADR."""

    lr: Schedule
    temperature: Schedule | None
    interpolation: Schedule | None

    def at(self, step: int) -> dict[str, float | None]:
        """Return the values in force at a step."""
        return {
            "lr": self.lr(step),
            "temperature": self.temperature(step) if self.temperature else None,
            "interpolation": self.interpolation(step) if self.interpolation else None,
        }


@dataclass(kw_only=True)
class Run:
    """A training run in memory: what moves from epoch to epoch, beside what stays."""

    config: TrainConfig
    dataset: Dataset
    directory: Path
    model: nn.Module
    slots: Slots
    optimizer: torch.optim.Optimizer
    schedules: Schedules
    noise: torch.Generator
    steps_per_epoch: int
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Snapshot] = field(default_factory=dict)

    @property
    def epochs_done(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        return self.epochs_done >= self.config.epochs

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.noise.device

    def models(self) -> dict[str, nn.Module]:
        """Return the student, and the average where there is one."""
        average = self.slots.averaging.model
        return {"student": self.model} | ({"average": average} if average is not None else {})


def run_name(config: TrainConfig, dataset: str) -> str:
    """Return the default name of a run."""
    arch = config.arch if config.activation == "relu" else f"{config.arch}-{config.activation}"
    return f"{dataset}-{arch}-{config.method}-seed{config.seed}"


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
        for name in (checkpoints.LAST, checkpoints.BEST, HISTORY, CONFIG):
            (directory / name).unlink(missing_ok=True)
    elif (directory / checkpoints.LAST).exists():
        resume(run)
    if not run.finished:
        content = json.dumps(config.to_json(), indent=1) + "\n"
        write_atomically(directory / CONFIG, content.encode())
        reporter.begin(config, run.steps_per_epoch, run.epochs_done + 1)
    while not run.finished:
        reporter.epoch(run_epoch(run, reporter))
    return describe(run)


def prepare(config: TrainConfig, dataset: Dataset, directory: Path, device: torch.device) -> Run:
    """Return a run at its first step; nothing is written."""
    num_steps = steps_per_epoch(len(dataset.train), config.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive_seed(config.seed, "weights"))
        model = build_model(
            config.arch,
            num_classes=dataset.num_classes,
            in_channels=dataset.channels,
            mean=dataset.mean,
            std=dataset.std,
            activation=config.activation,
        )
    model = model.to(device).train()
    noise = torch.Generator(device)
    slots = build_method(
        config,
        model,
        num_classes=dataset.num_classes,
        total_steps=config.epochs * num_steps,
        noise=noise,
    )
    return Run(
        config=config,
        dataset=replace(
            dataset,
            train=dataset.train.to(device),
            val=dataset.val.to(device),
            test=dataset.test.to(device),
        ),
        directory=directory,
        model=model,
        slots=slots,
        optimizer=build_optimizer(config, model),
        schedules=build_schedules(config, slots, num_steps),
        noise=noise,
        steps_per_epoch=num_steps,
    )


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with weight decay on every parameter, as in the published code."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def build_schedules(config: TrainConfig, slots: Slots, num_steps: int) -> Schedules:
    """Return the learning rate's schedule, and ADR's two where it is on."""
    milestones = [
        max(1, round(fraction * config.epochs)) * num_steps for fraction in config.milestones
    ]
    rectifier = getattr(slots.targets, "rectifier", None)
    return Schedules(
        lr=steps(config.lr, milestones, config.lr_factor),
        temperature=rectifier.temperature if rectifier else None,
        interpolation=rectifier.interpolation if rectifier else None,
    )


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
        values = run.schedules.at(step)
        for group in run.optimizer.param_groups:
            group["lr"] = values["lr"]
        run.noise.manual_seed(seeds.derive_seed(config.seed, "noise", step))
        loss = checked_step(run, x, y, step)
        total += loss
        reporter.step(epoch, step - first + 1, {"loss": loss, **values})
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
            run.model, run.slots, run.optimizer, x, y, step=step, autocast=autocast(run)
        ).loss
    except AdrbenchError as error:
        lr = run.optimizer.param_groups[0]["lr"]
        raise AdrbenchError(
            f"{error} (epoch {run.epochs_done + 1}, learning rate {lr:g}): {run.directory} "
            f"keeps epoch {run.epochs_done}; try a lower --lr or --precision float32."
        ) from error


def autocast(run: Run) -> Callable[[], AbstractContextManager[Any]] | None:
    """Return what the passes of a step run under: bfloat16 with float32 weights, or nothing.

    The cache of converted weights is off because AWP changes the weights within a step.
    """
    if run.config.precision == "float32":
        return None
    kind = run.device.type
    return lambda: torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False)


def validate(run: Run) -> HistoryRow:
    """Count clean and PGD accuracy of each set of weights on the split that chooses the best.

    The attack is that of training, with noise drawn per image, the same in every epoch.
    """
    images: Images = run.dataset.val if run.config.select == "val" else run.dataset.test
    threat = run.config.threat_model()
    attack = AttackConfig(
        suite=f"pgd-{run.config.steps}",
        threat_model=threat,
        alpha=run.config.alpha,
        batch_size=VALIDATION_BATCH,
        seed=run.config.seed,
    )
    suite = build_suite(attack, run.dataset.num_classes)
    row: HistoryRow = {"select": run.config.select, "select_n": len(images)}
    for weights, model in run.models().items():
        verdicts = evaluate(model, images, suite, threat, batch_size=attack.batch_size)
        row[f"{weights}_clean_correct"] = verdicts.clean_correct
        row[f"{weights}_robust_correct"] = verdicts.robust_correct
    return row


def snapshot(model: nn.Module, row: HistoryRow, weights: str) -> Snapshot:
    """Return a copy of a model's weights on the CPU, with its counts of this epoch."""
    return Snapshot(
        state={key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
        epoch=row["epoch"],
        clean_correct=row[f"{weights}_clean_correct"],
        robust_correct=row[f"{weights}_robust_correct"],
    )


def save(run: Run, row: HistoryRow) -> None:
    """Write the best weights if this epoch is a new best, the history, then the last state.

    `last.pt` comes last: should one of these writes never happen, the epoch is run again from
    the state before it and writes the same files.
    """
    now_here = {weights: snapshot(model, row, weights) for weights, model in run.models().items()}
    better = {
        weights: taken
        for weights, taken in now_here.items()
        if weights not in run.best or taken.robust_correct > run.best[weights].robust_correct
    }
    if better:
        run.best |= better
        checkpoints.save(
            run.directory / checkpoints.BEST, as_checkpoint(run, "best", run.best, None)
        )
    lines = "".join(json.dumps(line) + "\n" for line in run.history)
    write_atomically(run.directory / HISTORY, lines.encode())
    training = {"optimizer": run.optimizer.state_dict(), "history": run.history}
    checkpoints.save(
        run.directory / checkpoints.LAST, as_checkpoint(run, "last", now_here, training)
    )


def as_checkpoint(
    run: Run,
    selection: checkpoints.Selection,
    snapshots: dict[str, Snapshot],
    training: dict[str, Any] | None,
) -> Checkpoint:
    """Return what a checkpoint file of this run holds."""
    return Checkpoint(
        selection=selection,
        config=run.config,
        shape=ModelShape(
            arch=run.config.arch,
            activation=run.config.activation,
            num_classes=run.dataset.num_classes,
            in_channels=run.dataset.channels,
        ),
        run=run.directory.name,
        data_sha256=run.dataset.train.sha256(),
        snapshots=snapshots,
        training=training,
    )


def resume(run: Run) -> None:
    """Put `run` in the state that its directory holds.

    Raises:
        AdrbenchError: when that state is of a run with another setting or other images.

    """
    path = run.directory / checkpoints.LAST
    last = checkpoints.load(path)
    difference = last.config.difference(run.config)
    if difference:
        name, theirs, ours = difference
        raise AdrbenchError(
            f"{run.directory} holds a run with {flag(name)} {theirs}, not {ours}: give the same "
            "settings to go on, another --name for another run, or --force to start over."
        )
    if last.data_sha256 != run.dataset.train.sha256():
        raise AdrbenchError(
            f"{run.directory} was trained on other images than {run.config.dataset} holds now: "
            "bring the data back, or give --force to start over."
        )
    if last.training is None:
        raise CheckpointError(f"{path} holds no training state: give --force to start over.")
    for weights, model in run.models().items():
        model.load_state_dict(last.snapshots[weights].state)
    run.optimizer.load_state_dict(last.training["optimizer"])
    run.history[:] = last.training["history"]
    run.best |= checkpoints.load(run.directory / checkpoints.BEST).snapshots


def describe(run: Run) -> TrainRecord:
    """Return the record of a finished run."""
    seconds = sum(row["seconds"] for row in run.history)
    images = len(run.history) * run.steps_per_epoch * run.config.batch_size
    return TrainRecord(
        run=run.directory.name,
        dataset=run.dataset.name,
        arch=run.config.arch,
        method=run.config.method,
        seed=run.config.seed,
        config=run.config.to_json(),
        history=tuple(run.history),
        num_train=len(run.dataset.train),
        num_val=len(run.dataset.val),
        seconds=seconds,
        images_per_second=images / seconds,
        software=describe_software(),
        device=describe_device(run.device),
        precision=run.config.precision,
        created=now(),
    )
