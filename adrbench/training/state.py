"""A training run in memory.

Every random draw of a run is a function of the seed and of the position in the run, so a state
needs no generator inside and a resumed run ends in the weights of one that never stopped.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.checkpoints.format import Snapshot
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, Images, check_shares, steps_per_epoch
from adrbench.errors import UsageError
from adrbench.methods.build import build_method
from adrbench.methods.schedules import Schedule, steps
from adrbench.methods.slots import Slots
from adrbench.models.architectures import build_model
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import Session, TrainRecord
from adrbench.runtime import seeds
from adrbench.runtime.cuda_graphs import LossBuffer
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup

HistoryRow = dict[str, Any]


@dataclass(kw_only=True)
class Run:
    """A training run in memory: what moves from step to step, beside what stays.

    `losses` and `seconds` are those of the epoch in hand; `seconds` counts what earlier processes
    spent on its steps. `best` holds the weights of the best epoch so far, by name.
    """

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
    selection_sha256: str
    process_group: ProcessGroup
    losses: LossBuffer
    seconds: float = 0.0
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Snapshot] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)

    @property
    def epochs_done(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def steps_done(self) -> int:
        """The number of steps taken since the start of the run."""
        return self.epochs_done * self.steps_per_epoch + self.losses.recorded

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


def run_label(run: Run) -> str:
    """Return the name of a run where the user chose it, "" for the default name."""
    name = run.directory.name
    return "" if name == run_name(run.config, run.dataset.name) else name


def prepare(
    config: TrainConfig,
    dataset: Dataset,
    directory: Path,
    device: torch.device,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Run:
    """Return a run at its first step; nothing is written.

    Raises:
        DataError: when the training part is smaller than one batch.
        UsageError: for a batch that the processes cannot share, or SyncBatchNorm without GPUs.

    """
    num_steps = steps_per_epoch(len(dataset.train), config.batch_size)
    check_shares(config.batch_size, process_group.size)
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
    if config.sync_batch_norm:
        model = synchronised(model, device)
    model = convert_conv2d_weight_memory_format(model.to(device), IMAGE_FORMAT).train()
    slots = build_method(
        config,
        model,
        num_classes=dataset.num_classes,
        total_steps=config.epochs * num_steps,
        process_group=process_group,
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
        selection_sha256=selection_images(config, dataset).sha256(),
        process_group=process_group,
        losses=LossBuffer(num_steps, device),
    )


def selection_images(config: TrainConfig, dataset: Dataset) -> Images:
    """Return the images that choose the best epoch."""
    return dataset.val if config.select == "val" else dataset.test


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Let BatchNorm in training mode see the whole batch, whoever has which share of it.

    Raises:
        UsageError: without GPUs, where PyTorch cannot do that.

    """
    if device.type != "cuda":
        raise UsageError("--sync-batch-norm needs GPUs: leave it out, or give --device cuda.")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


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
        training_images_sha256=run.dataset.training_images_sha256,
        label=run_label(run),
        history=tuple(run.history),
        num_train=len(run.dataset.train),
        num_val=len(run.dataset.val),
        seconds=seconds,
        images_per_second=images / seconds,
        software=describe_software(),
        device=describe_device(run.device),
        precision=run.config.precision,
        sessions=tuple(run.sessions),
        created=now(),
    )
