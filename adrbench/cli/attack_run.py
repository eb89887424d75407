"""The evaluations of one `adrbench attack`: planned together, run one after another, displayed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from adrbench.attacks.find_suite import check_suite
from adrbench.cli.attack_output import print_attacks
from adrbench.config.settings import AttackConfig
from adrbench.display.attack import AttackDisplay
from adrbench.errors import AdrbenchError, UsageError
from adrbench.evaluation.adversarial import check_destination
from adrbench.evaluation.begun import adopt_begun
from adrbench.evaluation.finished import check_saved_examples, find_finished, has_outputs
from adrbench.evaluation.job import Job
from adrbench.evaluation.planning import check_fit, check_outputs, plan
from adrbench.evaluation.run import add_outputs, run
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.evaluation.state_files import output_files, progress_files
from adrbench.evaluation.targets import TargetModel, TargetOptions, resolve_targets
from adrbench.models.frozen import Freezer
from adrbench.printable import get_logger
from adrbench.results.records import AttackRecord
from adrbench.runtime.context import Context
from adrbench.runtime.files import check_writable
from adrbench.runtime.launch import is_restarted, rank_zero_first
from adrbench.runtime.memory_errors import explaining_memory_errors
from adrbench.runtime.process_group import ProcessGroup, same_on_all_ranks
from adrbench.runtime.signals import Interrupted

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class AttackRun:
    """The evaluations of one command: every target under every suite and radius.

    Without `radii`, each target is attacked at its own radius.
    """

    configs: Sequence[AttackConfig]
    radii: Sequence[float]
    options: TargetOptions
    out: Path
    save_adversarial: Path | None
    keep_outputs: bool
    force: bool

    def run(self, targets: Sequence[str], context: Context) -> None:
        """Attack every target on this rank; rank 0 prints and writes."""
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
        if not self.configs:
            raise UsageError("--suite is empty: give the name of a suite, see `list suites`.")
        for config in self.configs:
            check_suite(config.suite)
        if self.save_adversarial is not None:
            check_destination(self.save_adversarial)

    def plan(self, targets: Sequence[str], device: torch.device) -> list[Job]:
        """Return the evaluations in order, to be computed on `device`."""
        jobs = []
        for target in targets:
            for target_model in resolve_targets(target, self.options):
                test, info = self.options.test_split(target_model.dataset)
                logits = check_fit(target_model, test, info)
                jobs += [
                    plan(
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
                check_outputs(job, self.save_adversarial)
        return jobs

    def at_radii(self, target_model: TargetModel) -> list[TargetModel]:
        """Return a target once for each radius."""
        return [target_model.at_radius(eps) for eps in self.radii] or [target_model]


def attack_once(
    job: Job,
    context: Context,
    save_adversarial: Path | None,
    freezer: Freezer,
    *,
    keep_outputs: bool,
    force: bool,
) -> AttackRecord:
    """Return the record of an evaluation, which is run unless it is already finished.

    If only its outputs are missing, they are added to the record.
    """
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
def displayed(job: Job, group: ProcessGroup) -> Iterator[ProgressCallbacks]:
    """Display an evaluation on rank 0; explain where an interruption leaves it."""
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
