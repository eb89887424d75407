"""`adrbench attack`: plan the evaluations, run each, print a line per record."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device, takes_settings
from adrbench.config.declare import is_fraction, parse_fraction, settings_of
from adrbench.config.settings import AttackConfig
from adrbench.errors import AdrbenchError, UsageError

if TYPE_CHECKING:
    import torch

    from adrbench.evaluation.jobs import Job
    from adrbench.evaluation.stage_runner import ProgressCallbacks
    from adrbench.evaluation.targets import TargetModel, TargetOptions
    from adrbench.models.frozen import Freezer
    from adrbench.results.records import AttackRecord
    from adrbench.runtime.context import Context
    from adrbench.runtime.process_group import ProcessGroup

logger = logging.getLogger(__name__)


@takes_settings(settings_of(AttackConfig))
def attack(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run directories (best and last checkpoint are attacked); checkpoints; "
            "third-party state dicts (.pt, .safetensors; need --arch and --dataset); "
            "robustbench:NAME, timm:NAME or package.module:attribute, an nn.Module or a callable "
            "that returns one (need --dataset).",
        ),
    ],
    suite: Annotated[
        list[str],
        typer.Option(
            help="clean, fgsm, pgd, pgd-K, cw, apgd-ce, apgd-t, fab-t, square, autoattack, "
            "autoattack-plus, autoattack-rand, a plugin's name, or package.module:attribute; "
            "separate several by commas."
        ),
    ] = ["autoattack"],  # noqa: B006
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights to attack: student, average or both.",
            show_default="what the method deploys",
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Linf or L2.", show_default="as trained, else Linf")
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(
            help="Radius, such as 8/255; separate several by commas: 2/255,4/255,8/255.",
            show_default="as trained, else 8/255 or 0.5 (L2)",
        ),
    ] = None,
    given: Mapping[str, Any] = {},
    dataset: Annotated[
        str | None, typer.Option(help="Data set to attack the model on.", show_default="as trained")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a third-party state dict, as in `train`; also needed for a run "
            "trained with --arch package.module:attribute."
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Activation of --arch: relu or silu.", show_default="relu")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="Normalization to put in front of the network: cifar10, cifar100, tiny-imagenet, "
            "none, or MEAN/STD, such as 0.5,0.5,0.5/0.25,0.25,0.25."
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    zoo_dir: Annotated[Path, typer.Option(help="Directory for RobustBench's weights.")] = Path(
        "models"
    ),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model in records and tables.", show_default="that of the target"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for records.")] = Path("results"),
    save_adversarial: Annotated[
        Path | None,
        typer.Option(
            help="Also save the adversarial examples: FILE.npz with outcomes, or FILE.pt, the "
            "tensor that RobustBench requires.",
            show_default=False,
        ),
    ] = None,
    outputs: Annotated[
        bool,
        typer.Option(
            "--outputs",
            help="Also keep the logits on all images, clean and attacked to the end, in a file "
            "beside the record; for suites that maximize one loss.",
        ),
    ] = False,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Repeat finished evaluations.")] = False,
) -> None:
    """Attack models and record their robust accuracy."""
    from adrbench.evaluation.targets import TargetOptions
    from adrbench.runtime.launch import open_context

    with open_context(device) as context:
        check_targets(targets)
        radii = [parse_fraction(text, "eps") for text in split_commas(eps or [])]
        options = TargetOptions(
            weights=weights,
            dataset=dataset,
            arch=arch,
            activation=activation,
            normalize=normalize,
            norm=norm,
            eps=radii[0] if radii else None,
            name=name,
            data_dir=data_dir,
            zoo_dir=zoo_dir,
        )
        if name is not None:
            check_target_name(name, targets, out)
        run = AttackRun(
            configs=[AttackConfig(suite=one, **given) for one in split_commas(suite)],
            radii=radii,
            options=options,
            out=out,
            save_adversarial=save_adversarial,
            keep_outputs=outputs,
            force=force,
        )
        run.run(targets, context)


def check_targets(targets: Sequence[str]) -> None:
    """Raise UsageError for a target that is a further radius or suite, given without a comma."""
    from adrbench.attacks.builtin_suites import find_builtin

    for target in targets:
        meant = "eps" if is_fraction(target) else "suite" if find_builtin(target) else None
        if meant and not Path(target).exists():
            example = "2/255,8/255" if meant == "eps" else "pgd-20,autoattack"
            raise UsageError(
                f"{target} is given as a target, but there is no such file: if it is a value of "
                f"--{meant}, separate values by commas, as in --{meant} {example}."
            )


def check_target_name(name: str, targets: Sequence[str], out: Path) -> None:
    """Raise UsageError unless `name` can be that of the only target, recorded in `out`."""
    from adrbench.training.run_names import check_run_name

    if len(targets) > 1:
        raise UsageError(f"--name {name} cannot name {len(targets)} targets: give one target.")
    check_run_name(name, out)


def split_commas(texts: Sequence[str]) -> list[str]:
    """Return the values of an option that is repeated or lists several by commas, each once."""
    values = [part.strip() for text in texts for part in text.split(",")]
    return list(dict.fromkeys(filter(None, values)))


@dataclass(frozen=True, kw_only=True)
class AttackRun:
    """The evaluations of one command: every target under every suite and radius.

    Without `radii`, each target is attacked at its own radius.
    """

    configs: Sequence[AttackConfig]
    radii: Sequence[float]
    options: "TargetOptions"
    out: Path
    save_adversarial: Path | None
    keep_outputs: bool
    force: bool

    def run(self, targets: Sequence[str], context: "Context") -> None:
        """Attack every target on this rank; rank 0 prints and writes."""
        from adrbench.cli.attack_output import print_attacks
        from adrbench.evaluation.begun import adopt_begun
        from adrbench.evaluation.finished import find_finished
        from adrbench.models.frozen import Freezer
        from adrbench.runtime.launch import is_restarted, rank_zero_first
        from adrbench.runtime.process_group import same_on_all_ranks

        group = context.process_group
        self.check()
        force = self.force and not is_restarted(group)
        with rank_zero_first(group):
            jobs = self.plan(targets, context.device)
            if not force:
                jobs = [adopt_begun(job, context.device) for job in jobs]
        if not same_on_all_ranks(group, [job.state_fingerprint for job in jobs]):
            raise AdrbenchError(
                "the processes found different weights or images: use files that all machines "
                "share and that no process is writing."
            )
        if not force:
            for job in jobs:
                find_finished(job, context)  # refuses a foreign record before any attack
        records: list[AttackRecord] = []
        freezer = Freezer()
        try:
            for job in jobs:
                record = attack_once(
                    job,
                    context,
                    self.save_adversarial,
                    freezer,
                    keep_outputs=self.keep_outputs,
                    force=force,
                )
                records.append(record)
        finally:
            if records and group.is_rank_zero:
                print_attacks(records)

    def check(self) -> None:
        """Make the checks that do not need to read any file."""
        from adrbench.attacks.find_suite import check_suite
        from adrbench.evaluation.adversarial import check_destination

        if not self.configs:
            raise UsageError("--suite is empty: give the name of a suite, see `list suites`.")
        for config in self.configs:
            check_suite(config.suite)
        if self.save_adversarial is not None:
            check_destination(self.save_adversarial)

    def plan(self, targets: Sequence[str], device: "torch.device") -> list["Job"]:
        """Return the evaluations in order, to be computed on `device`."""
        from adrbench.evaluation import jobs as evaluations
        from adrbench.evaluation.targets import resolve_targets

        jobs = []
        for target in targets:
            for target_model in resolve_targets(target, self.options):
                test, info = self.options.test_split(target_model.dataset)
                logits = evaluations.check_fit(target_model, test, info)
                jobs += [
                    evaluations.plan(
                        one,
                        config,
                        test=test,
                        info=info,
                        out=self.out,
                        clean_logits=logits,
                        device=device,
                    )
                    for config in self.configs
                    for one in self.at_radii(target_model)
                ]
        if self.save_adversarial is not None and len(jobs) > 1:
            raise UsageError(
                f"--save-adversarial takes the examples of one evaluation, but this command "
                f"has {len(jobs)}: name one checkpoint, set of weights, suite and radius."
            )
        if self.keep_outputs:
            for job in jobs:
                evaluations.check_outputs(job, self.save_adversarial)
        return jobs

    def at_radii(self, target_model: "TargetModel") -> list["TargetModel"]:
        """Return a target once for each radius."""
        return [target_model.at_radius(eps) for eps in self.radii] or [target_model]


def attack_once(
    job: "Job",
    context: "Context",
    save_adversarial: Path | None,
    freezer: "Freezer",
    *,
    keep_outputs: bool,
    force: bool,
) -> "AttackRecord":
    """Return the record of an evaluation, which is run unless it is already finished.

    If only its outputs are missing, they are added to the record.
    """
    from adrbench.evaluation.finished import check_saved_examples, find_finished, has_outputs
    from adrbench.evaluation.jobs import progress_files
    from adrbench.evaluation.run import add_outputs, run
    from adrbench.runtime.files import check_writable

    group = context.process_group
    label = job.label
    record = None if force else find_finished(job, context)
    if record:
        if save_adversarial is not None:
            check_saved_examples(save_adversarial, job, record)
        how = "" if record.searched == job.searched else f", searched in {record.searched}"
        finished = f"{label} is already finished{how}, see {job.path}"
        if not keep_outputs or group.broadcast(has_outputs(job.path, record)):
            logger.info(f"{finished}: --force repeats it.")
            return record
        logger.info(f"{finished}: only its outputs are computed.")
    # A kill between writing the examples and the record leaves both the file and the progress.
    is_resumed = record is not None or bool(progress_files(job, 0).files())
    if save_adversarial and save_adversarial.exists() and not (is_resumed or force):
        raise AdrbenchError(
            f"{save_adversarial} exists: give another name, or --force to replace it."
        )
    if group.is_rank_zero:
        for path in filter(None, (job.path, save_adversarial)):
            check_writable(path.parent)
    with displayed(job, group) as callbacks:
        if record:
            return add_outputs(job, record, context, callbacks, freezer=freezer)
        return run(
            job,
            context,
            callbacks,
            force=force,
            save_adversarial=save_adversarial,
            keep_outputs=keep_outputs,
            freezer=freezer,
        )


@contextmanager
def displayed(job: "Job", group: "ProcessGroup") -> "Iterator[ProgressCallbacks]":
    """Display an evaluation on rank 0; explain where an interruption leaves it."""
    from rich.console import Console

    from adrbench.display.attack import AttackDisplay
    from adrbench.evaluation.jobs import output_files, progress_files
    from adrbench.evaluation.stage_runner import ProgressCallbacks
    from adrbench.runtime.memory_errors import explaining_memory_errors
    from adrbench.runtime.signals import Interrupted

    console = Console(stderr=True, quiet=not group.is_rank_zero)
    try:
        with (
            AttackDisplay(console, job.title, num_images=len(job.images)) as display,
            explaining_memory_errors(job.config.batch_size),
        ):
            yield ProgressCallbacks(on_batch=display.batch, on_pass=display.passes)
    except Interrupted as interruption:
        number = interruption.number
        if progress_files(job, 0).files() or output_files(job).find():
            where = f"in {job.label}; saved up to the last finished batch"
            raise Interrupted(number, where) from None
        where = f"in {job.label}, before its first batch was finished"
        raise Interrupted(number, where, resumes=False) from None
