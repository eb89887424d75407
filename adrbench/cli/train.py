"""`adrbench train`: resolve the settings, load the data, train, print what came of it."""

import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device
from adrbench.config.components import COMPONENTS
from adrbench.config.declare import flag
from adrbench.config.presets import DEFAULT_METHOD
from adrbench.errors import UsageError
from adrbench.runtime.signals import Interrupted

if TYPE_CHECKING:
    from adrbench.config.resolve import TrainRequest
    from adrbench.config.settings import TrainConfig
    from adrbench.data import Dataset
    from adrbench.results.records import TrainRecord
    from adrbench.runtime.context import Context

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run's files go, and how often its state is saved; `name` is None for the default."""

    name: str | None
    checkpoints: Path
    results: Path
    data_dir: Path
    save_minutes: float
    force: bool
    dry_run: bool

    def __post_init__(self) -> None:
        if not self.save_minutes >= 0:
            raise UsageError(
                f"--save-minutes is {self.save_minutes:g}: give a number of minutes, at least 0."
            )


def train(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="digits, cifar10, cifar100, tiny-imagenet, an .npz file or an image folder.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help=f"Tokens joined by +, in any order: {', '.join(COMPONENTS)}. See `list methods`."
        ),
    ] = DEFAULT_METHOD,
    arch: Annotated[
        str | None,
        typer.Option(
            help="small-cnn, resnet18, preact-resnet18, wrn-D-K, timm:NAME, a plugin's name, or "
            "package.module:attribute: a callable (num_classes, in_channels) -> nn.Module.",
            show_default="small-cnn for digits, else resnet18",
        ),
    ] = None,
    activation: Annotated[str, typer.Option(help="relu or silu.")] = "relu",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run.", show_default="dataset-arch-method-seedK"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("checkpoints"),
    results: Annotated[Path, typer.Option(help="Where the record goes.")] = Path("results"),
    data_dir: DataDir = Path("data"),
    given: Mapping[str, Any] = {},
    save_minutes: Annotated[
        float, typer.Option(help="How often to save within an epoch; each epoch is saved anyway.")
    ] = 5,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Start over, replacing the run.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print every setting with its source, and stop."),
    ] = False,
) -> None:
    """Train a model, or resume a run that was interrupted."""
    from adrbench.config.component_plugins import load_plugin_components
    from adrbench.config.resolve import TrainRequest
    from adrbench.models.architectures import find_activation, find_architecture
    from adrbench.runtime.launch import open_context

    with open_context(device) as context:
        options = RunOptions(
            name=name,
            checkpoints=out,
            results=results,
            data_dir=data_dir,
            save_minutes=save_minutes,
            force=force,
            dry_run=dry_run,
        )
        architecture = find_architecture(arch or default_arch(dataset))
        request = TrainRequest(
            dataset=dataset,
            method=method,
            arch=architecture.name,
            activation=find_activation(architecture, activation),
            given=given,
        )
        for problem in load_plugin_components().problems.values():
            logger.warning(problem)
        run(request, options, context)


def default_arch(dataset: str) -> str:
    """Return the architecture of a run on `dataset` without --arch."""
    return "small-cnn" if dataset == "digits" else "resnet18"


def run(request: "TrainRequest", options: RunOptions, context: "Context") -> None:
    """Train on this rank; rank 0 prints and writes."""
    from rich.console import Console

    from adrbench.cli.displays import TrainingDisplay
    from adrbench.cli.dry_run import describe_plan
    from adrbench.cli.memory_errors import explaining_memory_errors
    from adrbench.cli.settings_display import introduce
    from adrbench.runtime.files import check_writable
    from adrbench.runtime.launch import is_restarted, rank_zero_first
    from adrbench.training import loop
    from adrbench.training.checkpointer import is_finished
    from adrbench.training.run_names import check_run_name, run_name
    from adrbench.training.state import prepare_run

    group = context.process_group
    if options.name is not None:
        check_run_name(options.name, options.results)
    with rank_zero_first(group):
        request, config, dataset = load(request, options.data_dir)
    name = options.name or run_name(config, dataset.name)
    check_run_name(name, options.results)
    directory = options.checkpoints / name
    if options.dry_run:
        planned = prepare_run(config, dataset, directory, context)
        plan = describe_plan(planned, request, default_arch(request.dataset))
        if group.is_rank_zero:
            typer.echo(plan)
        return
    path = options.results / f"train-{name}.json"
    force = options.force and not is_restarted(group)
    if group.is_rank_zero and (force or not is_finished(directory, config)):
        for place in (directory, path.parent):
            check_writable(place)
    console = Console(stderr=True, quiet=not group.is_rank_zero)
    num_train = len(dataset.train) + len(dataset.val)
    settings = introduce(config, request.find_sources(dataset.name, num_train=num_train))
    display = TrainingDisplay(console, name, settings)
    context.stop.on_request = display.acknowledge
    try:
        with display, explaining_memory_errors(config.batch_size):
            record = loop.train(
                config,
                dataset,
                directory,
                context=context,
                force=force,
                callbacks=display,
                save_seconds=60 * options.save_minutes,
                record=path,
            )
    except KeyboardInterrupt as stop:
        raise locate(stop, directory, has_begun=display.started) from None
    if not group.is_rank_zero:
        return
    if not display.started:
        logger.info(f"{directory} was finished before, see {path}: --force trains it again.")
    typer.echo(summarize(record, directory))


def locate(stop: KeyboardInterrupt, directory: Path, *, has_begun: bool) -> Interrupted:
    """Return the interruption with where the run was, unless the loop, which saved, said so."""
    from adrbench.checkpoints.format import LAST

    if isinstance(stop, Interrupted) and stop.where:
        return stop
    number = getattr(stop, "number", signal.SIGINT)
    if has_begun and (directory / LAST).exists():
        where = f"before the next save; {directory} is as last saved"
        return Interrupted(number, where)
    where = "before anything was saved" if has_begun else "before the first step"
    return Interrupted(number, where, resumes=False)


def load(
    request: "TrainRequest", data_dir: Path
) -> tuple["TrainRequest", "TrainConfig", "Dataset"]:
    """Load the data set of a run, and complete its settings for that many images.

    The request is returned without what the data set makes meaningless.
    """
    from adrbench.data import load_dataset

    for name in request.ignored:
        logger.warning(f"{flag(name)} is ignored: method {request.method} does not use it.")
    dataset = load_dataset(
        request.dataset, data_dir=data_dir, val_size=request.val_size, seed=request.split_seed
    )
    if "split_seed" in request.given and not dataset.val_is_drawn:
        logger.warning(
            "--split-seed is ignored: no validation images are drawn from the training images."
        )
        request = request.without("split_seed")
    num_val = len(dataset.val)
    num_train = len(dataset.train) + num_val
    config = request.resolve(dataset.name, num_train=num_train, val_size=num_val)
    return request, config, dataset


def summarize(record: "TrainRecord", directory: Path) -> str:
    """Return the accuracies of a finished run, and the command that comes next."""
    from adrbench.results.best_epoch import best_row

    lines = []
    history = record.rows()
    last = history[-1]
    for weights in last.counts:
        best = best_row(history, weights)
        figures = ", ".join(
            f"{row.accuracy(weights, row.criterion):.1f} % at the {name} epoch ({row.epoch})"
            for name, row in (("best", best), ("last", last))
        )
        split = {"val": "validation", "test": "test"}[best.select]
        accuracy = {"robust": "PGD accuracy", "clean": "clean accuracy"}[best.criterion]
        lines.append(f"{weights}: {split} {accuracy} {figures}")
    lines.append(f"trained in {record.seconds:,.0f} s; next: adrbench attack {directory}")
    return "\n".join(lines)
