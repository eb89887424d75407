"""A training run: its constant inputs, and the state that every step changes.

Every random draw of a run is a function of the seed and of the position in the run, so the state
contains no random generator, and a resumed run ends with the same weights as an uninterrupted one.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from adrbench.checkpoints.state_dicts import check_values
from adrbench.config.component_plugins import foreign_tokens
from adrbench.config.method import Weights
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, Images, check_shares, steps_per_epoch
from adrbench.errors import UsageError, argument
from adrbench.methods.build import build_method
from adrbench.methods.schedules import Schedule, steps
from adrbench.methods.slots import Slots
from adrbench.models.architectures import Architecture, build_model, find_architecture
from adrbench.models.foreign import find_training_format
from adrbench.registry import calling_user_code
from adrbench.results.history import HistoryRow
from adrbench.results.records import Session
from adrbench.runtime import seeds
from adrbench.runtime.arithmetic import AUTO, FLOAT32, Arithmetic
from adrbench.runtime.context import Context
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.typed_json import from_json, to_json
from adrbench.training.automatic import decide
from adrbench.training.loss_buffer import LossBuffer, check_losses
from adrbench.training.optimizer import MOMENTUM, build_optimizer, load_momentum, read_momentum
from adrbench.training.run_names import run_name


@dataclass(frozen=True, kw_only=True)
class Run:
    """The constant inputs of a training run; `dataset` is on the device of `context`.

    `data_sha256` identifies the training images, `selection_sha256` those used to choose the best
    epoch. `architecture` is that of `config.arch`.
    """

    config: TrainConfig
    architecture: Architecture
    dataset: Dataset
    directory: Path
    steps_per_epoch: int
    learning_rate: Schedule
    data_sha256: str
    selection_sha256: str
    context: Context

    @property
    def image_size(self) -> tuple[int, int]:
        """The height and width of the images."""
        height, width = self.dataset.train.pixels.shape[2:]
        return height, width

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of its steps."""
        assert self.config.precision != AUTO, "prepare_run decides it"
        return self.config.precision

    def calling_user_code(self, when: str) -> AbstractContextManager[None]:
        """Turn exceptions of a network or a component that is not built in into one sentence.

        `when` completes "raised ...". Exceptions of built-in code are mistakes of ours, and pass.
        """
        if self.architecture.is_built_in and not foreign_tokens(self.config.method):
            return nullcontext()
        code = f"{self.config.arch} with method {self.config.method}"
        advice = ""
        if self.arithmetic == "bfloat16":
            advice = f" If it needs float32, give {argument('precision', FLOAT32)}."
        return calling_user_code(
            lambda raised: f"{code} {raised} {when}; any saved state is kept.{advice}"
        )


@dataclass(kw_only=True)
class TrainState:
    """The state of a training run, changed only by the training loop.

    `run_id` was drawn when the run began ("" for runs of early versions). `losses` and `seconds`
    are those of the current epoch; `seconds` includes the time that earlier sessions spent on it.
    `image_format` is the memory format of the training images.
    """

    run_id: str = ""

    model: nn.Module
    slots: Slots
    optimizer: torch.optim.Optimizer
    losses: LossBuffer
    image_format: torch.memory_format = IMAGE_FORMAT
    seconds: float = 0.0
    history: list[HistoryRow] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    @property
    def epochs_done(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def steps_done(self) -> int:
        """The number of steps since the start of the run."""
        return self.epochs_done * self.losses.num_steps + self.losses.recorded

    @property
    def is_within_epoch(self) -> bool:
        """Whether the current epoch is partly finished."""
        return self.losses.recorded > 0

    def models(self) -> dict[Weights, nn.Module]:
        """Return the student, and the average where the method has one."""
        models: dict[Weights, nn.Module] = {"student": self.model}
        if self.slots.averaging.model is not None:
            models["average"] = self.slots.averaging.model
        return models

    def finish_epoch(self, row: HistoryRow) -> None:
        """Append the row of the current epoch to the history and begin the next epoch."""
        self.history.append(row)
        self.losses = LossBuffer(self.losses.num_steps, self.losses.device)
        self.seconds = 0.0

    def note_compiled(self) -> None:
        """Record that the steps of the current session are compiled."""
        if self.sessions:
            self.sessions[-1] = replace(self.sessions[-1], compiled=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values and tensors, the weights by name under "models"."""
        return {
            "models": {weights: model.state_dict() for weights, model in self.models().items()},
            "momentum": read_momentum(self.optimizer),
            "history": [row.to_json() for row in self.history],
            "losses": self.losses.so_far(),
            "seconds": self.seconds,
            "sessions": to_json(self.sessions),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned, of this version or an earlier one.

        The settings of the optimizer are those of the run, not those of the file.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: where it is incomplete, inconsistent
                or of another model.

        """
        for weights, model in self.models().items():
            check_values(saved["models"][weights], model.state_dict())
            model.load_state_dict(saved["models"][weights])
        self.history = [HistoryRow.from_json(row) for row in saved["history"]]
        epochs = [row.epoch for row in self.history]
        if epochs != list(range(1, len(epochs) + 1)):
            raise ValueError(f"its history should have the epochs from 1 on, not {epochs}"[:200])
        losses = check_losses(saved.get("losses", torch.zeros(0)), self.losses.num_steps)
        self.losses = LossBuffer(self.losses.num_steps, self.losses.device, losses)
        load_momentum(self.optimizer, self._find_momentum(saved))
        self.seconds = saved.get("seconds", 0.0)
        if not isinstance(self.seconds, float) or not 0 <= self.seconds < math.inf:
            raise ValueError(f"its seconds should be a number from 0 on, not {self.seconds!r:.40}")
        self.sessions = [from_json(Session, session) for session in saved.get("sessions", ())]

    def _find_momentum(self, saved: Mapping[str, Any]) -> Sequence[object]:
        """Return the saved momentum; files of schema 3 and older hold the optimizer's state."""
        if "momentum" in saved:
            momentum: Sequence[object] = saved["momentum"]
            return momentum
        held = saved["optimizer"]["state"]
        numbers = range(len(list(self.model.parameters())))
        return [held[number][MOMENTUM] if number in held else None for number in numbers]


def run_label(run: Run) -> str:
    """Return the name of a run if the user chose it, "" for the default name."""
    name = run.directory.name
    return "" if name == run_name(run.config, run.dataset.name) else name


def prepare_run(
    config: TrainConfig,
    dataset: Dataset,
    directory: Path,
    context: Context,
    architecture: Architecture | None = None,
) -> Run:
    """Return the run of `config` on `dataset`, with what is "auto" decided; nothing is written.

    `architecture` is the one that `config` names, if it cannot be found by its name.

    Raises:
        DataError: when the training part is smaller than one batch.
        UsageError: for a batch that the ranks cannot share equally, an unknown architecture, or an
            arithmetic that the device does not have.
        ImportPathError: when the architecture cannot be imported.

    """
    architecture = architecture or find_architecture(config.arch)
    assert architecture.name == config.arch
    num_steps = steps_per_epoch(len(dataset.train), config.batch_size)
    check_shares(config.batch_size, context.process_group.size)
    return Run(
        config=decide(
            config,
            context.device,
            steps_per_epoch=num_steps,
            processes=context.process_group.size,
        ),
        architecture=architecture,
        dataset=replace(
            dataset,
            train=dataset.train.to(context.device),
            val=dataset.val.to(context.device),
            test=dataset.test.to(context.device),
        ),
        directory=directory,
        steps_per_epoch=num_steps,
        learning_rate=learning_rate(config, num_steps),
        data_sha256=dataset.train.sha256(),
        selection_sha256=selection_images(config, dataset).sha256(),
        context=context,
    )


def build_state(run: Run) -> TrainState:
    """Return the state of a run before its first step.

    Raises:
        UsageError: for SyncBatchNorm without GPUs, or a network that cannot be trained on images
            and classes like these, or whose state cannot be saved.
        ImportPathError: when a network from elsewhere cannot be built.

    """
    config, dataset, device = run.config, run.dataset, run.context.device
    with run.calling_user_code("when it was built"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive_seed(config.seed, "weights"))
        model = build_model(
            run.architecture,
            num_classes=dataset.num_classes,
            in_channels=dataset.channels,
            mean=dataset.mean,
            std=dataset.std,
            activation=config.activation,
            image_size=run.image_size,
        )
    image_format = IMAGE_FORMAT
    if not run.architecture.is_built_in:
        shape = (dataset.channels, *run.image_size)
        image_format = find_training_format(config.arch, model, shape, dataset.num_classes)
        check_state_dict(config.arch, model)
    if config.sync_batch_norm:
        model = synchronize_batch_norm(model, device)
    model = convert_conv2d_weight_memory_format(model.to(device), image_format).train()
    slots = build_method(
        config,
        model,
        num_classes=dataset.num_classes,
        total_steps=config.epochs * run.steps_per_epoch,
        process_group=run.context.process_group,
    )
    return TrainState(
        model=model,
        slots=slots,
        optimizer=build_optimizer(config, model),
        losses=LossBuffer(run.steps_per_epoch, device),
        image_format=image_format,
    )


def check_state_dict(arch: str, model: nn.Module) -> None:
    """Raise UsageError unless the state dict of a network can be saved in a checkpoint."""
    for name, entry in model.state_dict().items():
        if not isinstance(entry, Tensor):
            raise UsageError(
                f"architecture {arch} has {name} of type {type(entry).__name__} in its state dict, "
                "but checkpoints hold tensors only: let get_extra_state return a tensor, or "
                "register the state as a buffer."
            )


def selection_images(config: TrainConfig, dataset: Dataset) -> Images:
    """Return the images used to choose the best epoch."""
    return dataset.val if config.select == "val" else dataset.test


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` with BatchNorm over the whole batch, not over the share of each rank.

    Raises:
        UsageError: without GPUs, where PyTorch does not support it.

    """
    if device.type != "cuda":
        raise UsageError(
            f"{argument('sync_batch_norm')} needs GPUs: omit it, or give "
            f"{argument('device', 'cuda')}."
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def learning_rate(config: TrainConfig, num_steps: int) -> Schedule:
    """Return the schedule of the learning rate, for epochs of `num_steps` steps."""
    total = config.epochs * num_steps
    milestones = [round(fraction * total) for fraction in config.milestones]
    return steps(config.lr, milestones, config.lr_factor)
