"""A training run: its state in memory, and its directory on disk.

Every random draw of a run is a function of the seed and of the position in the run, so a state
needs no generator inside and a resumed run ends in the weights of one that never stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench import checkpoint as checkpoints
from adrbench import seeds
from adrbench.checkpoint import Checkpoint, ModelShape, Snapshot
from adrbench.config import TrainConfig, flag
from adrbench.datasets import Dataset, steps_per_epoch
from adrbench.devices import IMAGE_FORMAT
from adrbench.errors import AdrbenchError, CheckpointError
from adrbench.methods.build import Slots, build_method
from adrbench.models import build_model
from adrbench.provenance import describe_device, describe_software, now
from adrbench.records import TrainRecord, write_atomically
from adrbench.schedules import Schedule, steps

CONFIG, HISTORY = "config.json", "history.jsonl"
FILES = (checkpoints.LAST, checkpoints.BEST, HISTORY, CONFIG)

HistoryRow = dict[str, Any]


@dataclass(kw_only=True)
class Run:
    """A training run in memory: what moves from epoch to epoch, beside what stays."""

    config: TrainConfig
    dataset: Dataset
    directory: Path
    model: nn.Module
    slots: Slots
    optimizer: torch.optim.Optimizer
    lr: Schedule
    noise: torch.Generator
    steps_per_epoch: int
    data_sha256: str
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

    def scheduled(self, step: int) -> dict[str, float]:
        """Return what changes from step to step: the learning rate, and what targets anneal."""
        return {"lr": self.lr(step), **self.slots.targets.annealed(step)}

    def models(self) -> dict[str, nn.Module]:
        """Return the student, and the average where there is one."""
        average = self.slots.averaging.model
        return {"student": self.model} | ({"average": average} if average is not None else {})


def run_name(config: TrainConfig, dataset: str) -> str:
    """Return the default name of a run."""
    arch = config.arch if config.activation == "relu" else f"{config.arch}-{config.activation}"
    return f"{dataset}-{arch}-{config.method}-seed{config.seed}"


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
    model = convert_conv2d_weight_memory_format(model.to(device), IMAGE_FORMAT).train()
    slots = build_method(
        config,
        model,
        num_classes=dataset.num_classes,
        total_steps=config.epochs * num_steps,
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
        lr=learning_rate(config, num_steps),
        noise=torch.Generator(device),
        steps_per_epoch=num_steps,
        data_sha256=dataset.train.sha256(),
    )


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with weight decay on every parameter, as in the published code."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: TrainConfig, num_steps: int) -> Schedule:
    """Return the schedule of the learning rate, for epochs of `num_steps` steps."""
    total = config.epochs * num_steps
    milestones = [round(fraction * total) for fraction in config.milestones]
    return steps(config.lr, milestones, config.lr_factor)


def snapshot(model: nn.Module, row: HistoryRow, weights: str) -> Snapshot:
    """Return a copy of a model's weights on the CPU, with its counts of this epoch."""
    return Snapshot(
        state={
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in model.state_dict().items()
        },
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
        if best_row(run.history, weights) is row
    }
    if better:
        run.best |= better
        checkpoints.save(
            run.directory / checkpoints.BEST, as_checkpoint(run, "best", run.best, None)
        )
    lines = "".join(json.dumps(line) + "\n" for line in run.history)
    write_atomically(run.directory / HISTORY, lines.encode())
    for group in run.optimizer.param_groups:
        group["lr"] = row["lr"]  # on a GPU it is a tensor there
    training = {"optimizer": run.optimizer.state_dict(), "history": run.history}
    checkpoints.save(
        run.directory / checkpoints.LAST, as_checkpoint(run, "last", now_here, training)
    )


def best_row(history: Sequence[HistoryRow], weights: str) -> HistoryRow:
    """Return the epoch that selection chooses for `weights`: the first of the highest accuracy.

    The accuracy is that of the objective's criterion; the other of clean and robust breaks ties.
    """

    def score(row: HistoryRow) -> tuple[int, int]:
        counts = {name: row[f"{weights}_{name}_correct"] for name in ("clean", "robust")}
        first = counts.pop(row["criterion"])
        return first, *counts.values()

    return max(history, key=score)


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
        data_sha256=run.data_sha256,
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
    if last.data_sha256 != run.data_sha256:
        raise AdrbenchError(
            f"{run.directory} was trained on other images than {run.config.dataset} holds now: "
            "bring the data back, or give --force to start over."
        )
    try:
        best = checkpoints.load(run.directory / checkpoints.BEST)
        for weights, model in run.models().items():
            model.load_state_dict(last.snapshots[weights].state)
        training = last.training or {}
        run.optimizer.load_state_dict(training["optimizer"])
        lay_out_momenta(run.optimizer)
        run.history[:] = training["history"]
    except (CheckpointError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the state in {run.directory} is incomplete ({str(error).rstrip('.')}): "
            "give --force to start over."
        ) from error
    run.best |= best.snapshots


def lay_out_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Let momenta lie in memory as their parameters do: fused SGD on a CPU does not check it."""
    for parameter, state in optimizer.state.items():
        if "momentum_buffer" in state:
            momentum = torch.empty_like(parameter).copy_(state["momentum_buffer"])
            state["momentum_buffer"] = momentum


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
