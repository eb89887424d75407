"""`adrbench train`: resolve the settings, load the data, train, print a summary."""

import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device
from adrbench.config.components import COMPONENTS
from adrbench.config.presets import DEFAULT_METHOD
from adrbench.errors import AdrbenchError
from adrbench.registry import UserCodeError, describe_exception
from adrbench.runtime.signals import Interrupted

if TYPE_CHECKING:
    from adrbench.results.records import TrainRecord
    from adrbench.runtime.context import Context
    from adrbench.training.plan import Plan

logger = logging.getLogger(__name__)


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
    out: Annotated[Path, typer.Option(help="Parent of the run directory.")] = Path("checkpoints"),
    results: Annotated[Path, typer.Option(help="Directory for the record.")] = Path("results"),
    data_dir: DataDir = Path("data"),
    given: Mapping[str, Any] = {},
    save_minutes: Annotated[
        float,
        typer.Option(
            help="Minutes between saves within an epoch; each epoch is saved in any case."
        ),
    ] = 5,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Start over and replace the run.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print every setting with its source, and exit."),
    ] = False,
) -> None:
    """Train a model, or resume an interrupted run."""
    from adrbench.config.component_plugins import load_plugin_components
    from adrbench.runtime.launch import open_context
    from adrbench.training.plan import RunPlaces, make_plan, make_request

    with open_context(device) as context:
        places = RunPlaces(name=name, checkpoints=out, results=results, save_minutes=save_minutes)
        request, architecture = make_request(
            dataset, method=method, arch=arch, activation=activation, given=dict(given)
        )
        for problem in load_plugin_components().problems.values():
            logger.warning(problem)
        plan = make_plan(
            request,
            architecture,
            dataset=dataset,
            data_dir=data_dir,
            places=places,
            context=context,
        )
        if dry_run:
            print_plan(plan, context)
        else:
            run(plan, context, force=force)


def print_plan(plan: "Plan", context: "Context") -> None:
    """Print the description of a run."""
    from adrbench.cli.dry_run import describe_plan

    described = describe_plan(plan, context)
    if context.process_group.is_rank_zero:
        typer.echo(described)


def run(plan: "Plan", context: "Context", *, force: bool) -> None:
    """Train on this rank; rank 0 prints and writes."""
    from rich.console import Console

    from adrbench.cli.memory_errors import explaining_memory_errors
    from adrbench.cli.settings_display import introduce
    from adrbench.display.training import TrainingDisplay

    group, directory = context.process_group, plan.directory
    console = Console(stderr=True, quiet=not group.is_rank_zero)
    settings = introduce(plan.config, plan.find_sources())
    display = TrainingDisplay(console, plan.name, settings)
    context.stop.on_request = display.acknowledge
    try:
        with display, explaining_memory_errors(plan.config.batch_size):
            record = plan.run(context, force=force, callbacks=display)
    except (MemoryError, RuntimeError, TypeError, ValueError, LookupError) as error:
        if isinstance(error, AdrbenchError) or plan.architecture.is_built_in:
            raise
        raise UserCodeError(
            f"{plan.config.arch} raised {describe_exception(error)} in training; what was saved "
            "before is kept."
        ) from error
    except KeyboardInterrupt as stop:
        raise locate(stop, directory, has_begun=display.started) from None
    if not group.is_rank_zero:
        return
    if not display.started:
        logger.info(f"{directory} is already finished, see {plan.record}: --force trains it again.")
    typer.echo(summarize(record, directory))


def locate(stop: KeyboardInterrupt, directory: Path, *, has_begun: bool) -> Interrupted:
    """Return the interruption with the position of the run, unless the loop has already set it."""
    from adrbench.checkpoints.format import LAST

    if isinstance(stop, Interrupted) and stop.where:
        return stop
    number = getattr(stop, "number", signal.SIGINT)
    if has_begun and (directory / LAST).exists():
        where = f"before the next save; {directory} has the last saved state"
        return Interrupted(number, where)
    where = "before anything was saved" if has_begun else "before the first step"
    return Interrupted(number, where, resumes=False)


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
    lines.append(f"trained in {record.seconds:,.0f} s; next: adrbench attack {directory}{arch}")
    return "\n".join(lines)
