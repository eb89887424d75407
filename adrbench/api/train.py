"""`adrbench.train`: train or resume a run from Python."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import nn

from adrbench.checkpoints.format import BEST, LAST, Selection
from adrbench.checkpoints.restore import load_model
from adrbench.config.component_plugins import all_component_settings
from adrbench.config.declare import convert, is_number, wrong_type
from adrbench.config.method import Weights
from adrbench.config.presets import DEFAULT_METHOD
from adrbench.config.settings import SAVE_MINUTES, TrainConfig, train_settings
from adrbench.data import Dataset
from adrbench.display.settings import introduce
from adrbench.display.training import TrainingDisplay
from adrbench.errors import unknown_name
from adrbench.models.architectures import is_imported
from adrbench.models.foreign import Builder
from adrbench.results.best_epoch import best_row
from adrbench.results.history import HistoryRow
from adrbench.results.records import TrainRecord
from adrbench.runtime.context import Context
from adrbench.runtime.launch import open_context
from adrbench.training.callbacks import Callbacks, NoCallbacks, check_callbacks, combine
from adrbench.training.plan import Plan, RunPlaces, make_plan
from adrbench.training.run import run_plan
from adrbench.training.tensorboard import TensorBoard

F = TypeVar("F", bound=Callable[..., Any])
#: selection -> its file.
CHECKPOINTS: Mapping[Selection, str] = {"best": BEST, "last": LAST}


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run: its directory, with `best.pt` and `last.pt`, and its record.

    `arch` is the architecture that the network was built from. A run can be pickled if `arch` can:
    a name, or a function or class of a module.
    """

    directory: Path
    record: TrainRecord
    arch: str | Builder

    @property
    def best_epoch(self) -> HistoryRow:
        """The epoch of `best.pt`, for the weights that the method deploys."""
        return best_row(self.record.rows(), self._deployed)

    @property
    def validation_accuracy(self) -> float:
        """The accuracy, from 0 to 1, at the best epoch, on the images that were used to choose it.

        It is the accuracy under the attack of the training; for `standard`, that without attack.
        These images are not test images: use `adrbench.evaluate` on those.
        """
        row = self.best_epoch
        return row.counts[self._deployed].of(row.criterion) / row.select_n

    def load_model(
        self, weights: Weights | None = None, *, selection: Selection = "best"
    ) -> nn.Module:
        """Return the model of the best or the last epoch in eval mode on the CPU.

        It takes images (N, C, H, W) in [0, 1]. `weights` is "student" or "average", or None for
        the weights that the method deploys. `selection` is "best" or "last".

        Raises:
            CheckpointError: when the run has no such weights.
            UsageError: for another name.

        """
        if selection not in CHECKPOINTS:
            raise unknown_name("selection", str(selection), CHECKPOINTS)
        path = self.directory / CHECKPOINTS[selection]
        needs_arch = is_imported(self.record.arch)
        return load_model(path, weights, arch=self.arch if needs_arch else None)

    def __repr__(self) -> str:
        row, total = self.best_epoch, len(self.record.history)
        return (
            f"TrainedRun({str(self.directory)!r}, {row.criterion} {row.select} accuracy "
            f"{self.validation_accuracy:.1%} at epoch {row.epoch} of {total})"
        )

    @property
    def _deployed(self) -> Weights:
        return TrainConfig.from_json(self.record.config).parsed_method().deployed


def lists_settings(function: F) -> F:
    """Let `help` and completion show each setting in place of `**settings`.

    The settings are declared in one place, and plugins add others, so they are not in the source.
    """
    signature = inspect.signature(function)
    named = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    settings = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
        for one in train_settings().values()
    ]
    function.__signature__ = signature.replace(parameters=[*named, *settings])  # type: ignore[attr-defined]
    return function


@lists_settings
def train(
    dataset: str | Path | Dataset,
    *,
    method: str = DEFAULT_METHOD,
    arch: str | Builder | None = None,
    activation: str = "relu",
    name: str | None = None,
    out: str | Path = "checkpoints",
    results: str | Path = "results",
    data_dir: str | Path = "data",
    save_minutes: float = SAVE_MINUTES,
    device: str | torch.device = "auto",
    force: bool = False,
    progress: bool = False,
    callbacks: Callbacks | None = None,
    tensorboard: str | Path | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train a model as `adrbench train` does, or resume an interrupted run.

    Args:
        dataset: The name or path of a data set, or an `adrbench.Dataset`.
        method: Tokens joined by +, such as "adr+wa" (see `adrbench list methods`).
        arch: A name (see `adrbench list archs`), `timm:NAME`, `package.module:attribute`, or a
            callable `(num_classes, in_channels) -> nn.Module` whose network takes pixels in
            [0, 1]; "small-cnn" for digits and "resnet18" otherwise by default.
        activation: "relu" or "silu", if the architecture supports a choice.
        name: The name of the run; by default composed of data set, architecture, method and seed.
        out: Parent of the run directory.
        results: Directory for the record.
        data_dir: Directory of CIFAR (downloaded if missing) and TinyImageNet.
        save_minutes: Minutes between saves within an epoch; each epoch is saved in any case.
        device: "auto", "cpu", "cuda", "cuda:K", or a `torch.device`.
        force: Whether to start over if a run of that name exists.
        progress: Whether to show the progress on stderr, as the command line does.
        callbacks: An object whose functions are called as the run progresses, for example to log
            it, in addition to the display of `progress` (see `adrbench.Callbacks`).
        tensorboard: A directory for TensorBoard's logs, of which the run gets a subdirectory with
            its name; needs the package tensorboard.
        **settings: Hyperparameters, named like their flags with underscores: `epochs=5`,
            `eps=8/255`, `milestones=(0.5, 0.75)`. A preset supplies those that are None or not
            given.

    Raises:
        UsageError: for an unknown name or setting, or a value that is not allowed.
        DataError: for missing or broken data.
        AdrbenchError: when the directory contains another run, another process is writing to it,
            memory does not suffice, or the loss becomes non-finite.
        UserCodeError: when a network, a method component or callbacks of your own raise.
        Interrupted: on Ctrl-C, once the run is saved; the same call resumes it.

    Example:
        >>> import adrbench
        >>> run = adrbench.train("digits", method="adr+wa", epochs=5)  # doctest: +SKIP
        >>> model = run.load_model("average")  # doctest: +SKIP

    """
    _check_types(
        dataset=(dataset, (str, Path, Dataset), "a name, a path or an adrbench.Dataset"),
        method=(method, (str,), f"tokens joined by +, such as {DEFAULT_METHOD!r}"),
        activation=(activation, (str,), "'relu' or 'silu'"),
        name=(name, (str, type(None)), "a text"),
        out=(out, (str, Path), "a path"),
        results=(results, (str, Path), "a path"),
        data_dir=(data_dir, (str, Path), "a path"),
        tensorboard=(tensorboard, (str, Path, type(None)), "a path"),
        device=(device, (str, torch.device), "'auto', 'cpu', 'cuda' or 'cuda:K'"),
        force=(force, (bool,), "True or False"),
        progress=(progress, (bool,), "True or False"),
    )
    if not (arch is None or isinstance(arch, str) or callable(arch)):
        allowed = "a name, or a callable (num_classes, in_channels) that returns an nn.Module"
        raise wrong_type("arch", arch, allowed)
    if not is_number(save_minutes):
        raise wrong_type("save_minutes", save_minutes, "a number of minutes")
    given = check_given(settings)
    own = NoCallbacks() if callbacks is None else check_callbacks(callbacks)
    with open_context(str(device)) as context:
        plan = make_plan(
            str(dataset) if isinstance(dataset, Path) else dataset,
            method=method,
            arch=arch,
            activation=activation,
            given=given,
            data_dir=Path(data_dir),
            places=RunPlaces(
                name=name,
                checkpoints=Path(out),
                results=Path(results),
                save_minutes=float(save_minutes),
            ),
            context=context,
            force=force,
        )
        record = run_with_display(
            plan,
            context,
            force=force,
            progress=progress,
            callbacks=own,
            tensorboard=None if tensorboard is None else Path(tensorboard),
        )
    return TrainedRun(directory=plan.directory, record=record, arch=arch or plan.config.arch)


def run_with_display(
    plan: Plan,
    context: Context,
    *,
    force: bool,
    progress: bool = True,
    callbacks: Callbacks | None = None,
    tensorboard: Path | None = None,
    hint: str = "",
) -> TrainRecord:
    """Train as `run_plan` does; with `progress`, rank 0 shows it on stderr.

    The command line calls this too. `tensorboard` is a directory to which rank 0 writes logs;
    `hint` follows the settings in the first line.
    """
    is_rank_zero = context.process_group.is_rank_zero
    log = TensorBoard(tensorboard, plan.directory) if tensorboard and is_rank_zero else None
    console = Console(stderr=True, quiet=not (progress and is_rank_zero))
    settings = introduce(plan.config, plan.find_sources())
    display = TrainingDisplay(console, plan.name, f"{settings} {hint}".rstrip())
    context.stop.on_request = display.acknowledge
    together = combine(display, log or NoCallbacks(), callbacks or NoCallbacks())
    with display, closing(log) if log else nullcontext():
        record = run_plan(plan, context, force=force, callbacks=together)
        if log:
            log.complete()
    return record


def check_given(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return the given settings, with values of their declared types; None is not given.

    Raises:
        UsageError: for an unknown name, or a value of another type.

    """
    known = {**train_settings(), **all_component_settings()}
    for name in settings:
        if name not in known:
            raise unknown_name("setting", name, known)
    return {
        name: convert(known[name], value) for name, value in settings.items() if value is not None
    }


def _check_types(**arguments: tuple[object, tuple[type, ...], str]) -> None:
    """Raise UsageError for the first argument that has none of its types.

    Each is given with its value, its types and what is allowed, in words.
    """
    for name, (value, types, allowed) in arguments.items():
        if not isinstance(value, types):
            raise wrong_type(name, value, allowed)
