"""`adrbench attack`: plan the evaluations, run each, print a line per record."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device, takes_settings
from adrbench.config.declare import format_eps, parse_fraction, settings_of
from adrbench.config.settings import AttackConfig
from adrbench.errors import AdrbenchError

if TYPE_CHECKING:
    from adrbench.evaluation.jobs import Job
    from adrbench.evaluation.targets import TargetOptions
    from adrbench.results.records import AttackRecord
    from adrbench.runtime.context import Context

logger = logging.getLogger(__name__)


@takes_settings(settings_of(AttackConfig))
def attack(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run directories (best and last are attacked), checkpoints, state dicts from "
            "elsewhere (with --arch and --dataset), robustbench:NAME (with --dataset).",
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(
            help="fgsm, pgd, pgd-K, cw, apgd-ce, apgd-t, fab-t, square, autoattack, "
            "autoattack-plus or autoattack-rand."
        ),
    ] = "autoattack",
    weights: Annotated[
        str | None,
        typer.Option(help="student, average or both.", show_default="what the method deploys"),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Linf or L2.", show_default="as trained, else Linf")
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(help="Radius: 8/255.", show_default="as trained, else 8/255 or 0.5 (L2)"),
    ] = None,
    given: Mapping[str, Any] = {},
    dataset: Annotated[
        str | None, typer.Option(help="Data set to attack on.", show_default="as trained")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="Architecture of a state dict from elsewhere.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Its activation: relu or silu.", show_default="relu")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(help="Normalization outside of it: cifar10, cifar100, tiny-imagenet or none."),
    ] = None,
    data_dir: DataDir = Path("data"),
    zoo_dir: Annotated[Path, typer.Option(help="Where RobustBench keeps its weights.")] = Path(
        "models"
    ),
    out: Annotated[Path, typer.Option(help="Where records go.")] = Path("results"),
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Redo finished evaluations.")] = False,
) -> None:
    """Attack trained models and record on how many images each is robust."""
    from adrbench.evaluation.targets import TargetOptions
    from adrbench.runtime.launch import open_context

    with open_context(device) as context:
        config = AttackConfig(suite=suite, **given)
        options = TargetOptions(
            weights=weights,
            dataset=dataset,
            arch=arch,
            activation=activation,
            normalize=normalize,
            norm=norm,
            eps=None if eps is None else parse_fraction(eps, "eps"),
            data_dir=data_dir,
            zoo_dir=zoo_dir,
        )
        run(targets, config, options, out, context, force=force)


def run(
    targets: Sequence[str],
    config: AttackConfig,
    options: "TargetOptions",
    out: Path,
    context: "Context",
    *,
    force: bool,
) -> None:
    """Attack every target on this rank; rank 0 prints and writes."""
    from adrbench.attacks.suites import check_suite
    from adrbench.data import load_split
    from adrbench.evaluation import jobs as evaluations
    from adrbench.evaluation.targets import resolve_targets
    from adrbench.runtime.launch import is_restarted, rank_zero_first
    from adrbench.runtime.process_group import same_on_all_ranks

    group = context.process_group
    check_suite(config.suite)
    load_test = cache(partial(load_split, split="test", data_dir=options.data_dir))
    jobs = []
    with rank_zero_first(group):
        for target in targets:
            for target_model in resolve_targets(target, options):
                test, info = load_test(target_model.dataset)
                job = evaluations.plan(target_model, config, test=test, info=info, out=out)
                jobs.append(job)
    if not same_on_all_ranks(group, [job.fingerprint for job in jobs]):
        raise AdrbenchError(
            "the processes found different weights or images: give files that all machines share, "
            "and that no process writes in the meantime."
        )
    force = force and not is_restarted(group)
    if not force:
        for job in jobs:
            evaluations.find_finished(job, context)  # refuses a foreign record before any attack
    records: list[AttackRecord] = []
    try:
        for job in jobs:
            records.append(attack_once(job, context, force=force))
    finally:
        if records and group.is_rank_zero:
            print_attacks(records)


def attack_once(job: "Job", context: "Context", *, force: bool) -> "AttackRecord":
    """Return the record of an evaluation, run now unless it was finished before."""
    from rich.console import Console

    from adrbench.cli.displays import AttackDisplay
    from adrbench.cli.memory_errors import explaining_memory_errors
    from adrbench.evaluation import jobs as evaluations
    from adrbench.runtime.files import check_writable
    from adrbench.runtime.signals import Interrupted

    group = context.process_group
    label = f"{job.target_model.label} {job.suite.name}"
    record = None if force else evaluations.find_finished(job, context)
    if record:
        logger.info(f"{label} was done before, see {job.path}: --force does it again.")
        return record
    if group.is_rank_zero:
        check_writable(job.path.parent)
    console = Console(stderr=True, quiet=not group.is_rank_zero)
    try:
        with (
            AttackDisplay(console, label, num_images=len(job.images)) as display,
            explaining_memory_errors(job.config.batch_size),
        ):
            return evaluations.run(job, context, display.batch, force=force)
    except Interrupted as interruption:
        where = f"{label} is saved up to the last finished batch"
        raise Interrupted(interruption.number, where) from None


def print_attacks(records: Sequence["AttackRecord"]) -> None:
    """Print one line per record to stdout, and its warnings to stderr."""
    from adrbench.cli.output import plain_table, print_table

    table = plain_table("target", "weights", "threat", "suite", "n", "clean", "robust")
    for record in records:
        table.add_row(
            record.run if record.selection == "file" else f"{record.run} {record.selection}",
            record.weights,
            f"{record.threat_model.norm} {format_eps(record.threat_model.eps)}",
            record.suite,
            f"{record.n:,}",
            f"{100 * record.clean_correct / record.n:.2f} %",
            f"{100 * record.robust_correct / record.n:.2f} %",
        )
    print_table(table)
    for record in records:
        for warning in record.warnings:
            typer.echo(f"warning: {record.run} {record.suite}: {warning}", err=True)
