"""`adrbench train`: parse a command line, train, and print a summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device, is_on_command_line
from adrbench.config.components import COMPONENTS
from adrbench.config.presets import DEFAULT_METHOD
from adrbench.config.settings import SAVE_MINUTES
from adrbench.printable import get_logger, printable

if TYPE_CHECKING:
    from adrbench.results.records import TrainRecord

logger = get_logger(__name__)

#: The arguments besides the data set that determine the preset.
CHOICES = ("method", "arch", "activation")
#: Where a run's first line says that all its settings are shown.
HINT = "(adrbench train ... --dry-run shows all)"


def train(
    context: typer.Context,
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
    out: Annotated[Path, typer.Option(help="Parent of the run directory.")] = Path("checkpoints"),
    results: Annotated[Path, typer.Option(help="Directory for the record.")] = Path("results"),
    data_dir: DataDir = Path("data"),
    given: Mapping[str, Any] = {},
    save_minutes: Annotated[
        float,
        typer.Option(
            help="Minutes between saves within an epoch; each epoch is saved in any case."
        ),
    ] = SAVE_MINUTES,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Start over and replace the run.")] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Directory for TensorBoard's logs, in which the run gets a subdirectory.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print every setting with its source, and exit."),
    ] = False,
) -> None:
    """Train a model, or resume an interrupted run."""
    from adrbench.api.train import run_with_display
    from adrbench.cli.dry_run import LoadOrAssume, describe_plan
    from adrbench.cli.existing_run import describe_existing
    from adrbench.data import load_dataset
    from adrbench.runtime.launch import open_context
    from adrbench.training.plan import RunPlaces, make_plan

    with open_context(device) as opened:
        load = LoadOrAssume()
        places = RunPlaces(name=name, checkpoints=out, results=results, save_minutes=save_minutes)
        plan = make_plan(
            dataset,
            method=method,
            arch=arch,
            activation=activation,
            given=given,
            data_dir=data_dir,
            places=places,
            context=opened,
            force=force,
            load=load if dry_run else load_dataset,
        )
        note = None
        if dry_run:
            choices = [one for one in CHOICES if is_on_command_line(context, one)]
            text = describe_plan(plan, opened, choices)
            note = describe_existing(plan, opened, force=force, are_images_assumed=load.has_assumed)
        else:
            record = run_with_display(plan, opened, force=force, tensorboard=tensorboard, hint=HINT)
            text = summarize(record, plan.directory)
        if opened.process_group.is_rank_zero:
            typer.echo(text)
        if note:
            logger.info(note)


def summarize(record: "TrainRecord", directory: Path) -> str:
    """Return the accuracies of a finished run, and the next command to run."""
    from adrbench.models.architectures import is_imported
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
    arch = f" --arch {record.arch}" if is_imported(record.arch) else ""
    shown = printable(str(directory))
    lines.append(f"trained in {record.seconds:,.0f} s; next: adrbench attack {shown}{arch}")
    return "\n".join(lines)
