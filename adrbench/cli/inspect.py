"""`adrbench inspect`: what ADR does to the labels of a run at one of its checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from adrbench.cli.options import DataDir, Device
from adrbench.errors import UsageError, unknown_name
from adrbench.printable import get_logger

if TYPE_CHECKING:
    from adrbench.evaluation.inspection import Inspection
    from adrbench.results.inspection import InspectRecord
    from adrbench.runtime.context import Context

logger = get_logger(__name__)

SELECTIONS = ("best", "last")


def inspect(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run directory or checkpoint of a run whose method has ADR."
        ),
    ],
    selection: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of a run directory: best or last.", show_default="best, else last"
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Inspect the first n training images.", show_default="all"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set that the run was trained on.", show_default="as trained"),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a run that was trained with --arch package.module:attribute."
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    out: Annotated[Path, typer.Option(help="Directory for the record.")] = Path("results"),
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 250,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Repeat a finished inspection.")] = False,
) -> None:
    """Show what ADR does to the labels of a run at a checkpoint."""
    if selection is not None and selection not in SELECTIONS:
        raise unknown_name("selection", selection, SELECTIONS)
    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}: give a whole number of at least 1.")
    from adrbench.cli.inspect_output import print_inspection
    from adrbench.evaluation.inspection import plan_inspection
    from adrbench.runtime.launch import is_restarted, open_context, rank_zero_first

    with open_context(device) as context:
        group = context.process_group
        with rank_zero_first(group):
            job = plan_inspection(
                run,
                selection=cast(Literal["best", "last"] | None, selection),
                n=n,
                dataset=dataset,
                arch=arch,
                data_dir=data_dir,
                out=out,
            )
        is_forced = force and not is_restarted(group)
        record = inspect_once(job, context, batch_size=batch_size, force=is_forced)
        if group.is_rank_zero:
            print_inspection(record, job.record)


def inspect_once(
    job: "Inspection", context: "Context", *, batch_size: int, force: bool
) -> "InspectRecord":
    """Return the record of an inspection, which is run unless it is already finished."""
    from rich.console import Console

    from adrbench.display.inspection import InspectionDisplay
    from adrbench.evaluation import inspection
    from adrbench.runtime.memory_errors import explaining_memory_errors

    group = context.process_group
    earlier = None if force else group.broadcast(inspection.find_earlier(job))
    if earlier:
        logger.info(f"{job.label} is already inspected, see {job.record}: --force repeats it.")
        return earlier
    console = Console(stderr=True, quiet=not group.is_rank_zero)
    with InspectionDisplay(console) as display, explaining_memory_errors(batch_size):
        return inspection.inspect(job, context, batch_size=batch_size, on_batch=display.batch)
