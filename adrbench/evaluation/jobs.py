"""From weights to a record: plan an evaluation, make it, write its result."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from adrbench.attacks.suites import Suite, build_suite
from adrbench.config.settings import AttackConfig
from adrbench.data import Images, Source, to_float
from adrbench.errors import UsageError
from adrbench.evaluation.evaluate import Evaluation, OnBatch, evaluate
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.targets import TargetModel
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import AttackRecord, Threat, Verdicts, pack_verdicts, write_record
from adrbench.runtime.files import only_writer
from adrbench.runtime.hashing import sha256_of_json
from adrbench.runtime.process_group import ProcessGroup

logger = logging.getLogger(__name__)

#: What networks raise on images of a size they were not made for.
UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to make: a target_model, its images, a suite, and where the record goes.

    `fingerprint` is of all that the verdicts of a batch depend on.
    """

    target_model: TargetModel
    config: AttackConfig
    images: Images
    info: Source
    num_test: int
    suite: Suite
    path: Path
    fingerprint: str


def plan(
    target_model: TargetModel,
    config: AttackConfig,
    *,
    test: Images,
    info: Source,
    out: Path,
) -> Job:
    """Return the evaluation of `target_model` on `test` images, its model known to fit them.

    Raises:
        UsageError: when the suite or the model does not fit the images.

    """
    check_fit(target_model, test, info)
    if config.n is not None and config.n > len(test):
        logger.warning(
            f"{info.name} has {len(test):,} test images, not {config.n:,}: all of them are used."
        )
    images = test.first(min(config.n or len(test), len(test)))
    suite = build_suite(config, info.num_classes)
    warn_of_ignored(config, suite)
    identity = {
        "model": [target_model.weights_sha256, target_model.arch, target_model.activation],
        "weights": target_model.weights,
        "data": images.sha256(),
        "norm": config.threat_model.norm,
        "eps": config.threat_model.eps,
        "suite": suite.name,
        "parameters": dict(suite.parameters),
        "seed": config.seed,
        "batch_size": config.batch_size if suite.batch_dependent else None,
    }
    digest = sha256_of_json(identity)
    parts = [target_model.run, target_model.selection, target_model.weights, suite.name]
    if target_model.weights == "file":
        parts = [target_model.run, suite.name]
    stem = "-".join(parts).replace(":", "-").replace("/", "-")
    return Job(
        target_model=target_model,
        config=config,
        images=images,
        info=info,
        num_test=len(test),
        suite=suite,
        path=out / f"{stem}-{digest[:8]}.json",
        fingerprint=sha256_of_json(identity | {"batch_size": config.batch_size}),
    )


def check_fit(target_model: TargetModel, images: Images, info: Source) -> None:
    """Raise UsageError unless the model takes these images and knows these classes."""
    one = to_float(images.first(1).pixels)
    try:
        with torch.no_grad():
            logits = target_model.model(one)
    except UNFIT as error:
        raise UsageError(
            f"{target_model.label} does not take images of shape {tuple(one.shape[1:])} (channels, "
            f"height, width) from {info.name}: give the --dataset it was trained for."
        ) from error
    if logits.shape[1] != info.num_classes:
        raise UsageError(
            f"{target_model.label} has {logits.shape[1]} classes, {info.name} has "
            f"{info.num_classes}: give the --dataset it was trained for."
        )


def warn_of_ignored(config: AttackConfig, suite: Suite) -> None:
    """Log the settings that were given and that `suite` does not use."""
    given = {"alpha": config.alpha is not None, "restarts": config.restarts > 1}
    for name, is_given in given.items():
        if is_given and name not in suite.parameters:
            logger.warning(f"--{name} is ignored: suite {suite.name} does not use it.")


def run(
    job: Job,
    device: torch.device,
    on_batch: OnBatch,
    *,
    process_group: ProcessGroup,
    force: bool,
) -> AttackRecord:
    """Make the evaluation, going on where it was interrupted unless `force`; write its record.

    Every rank calls this and gets the record; rank 0 writes it.

    Raises:
        AdrbenchError: when somebody else is making it.

    """
    with only_ours(job, process_group):
        progress_store = progress_files(job, process_group.rank)
        if force and process_group.is_rank_zero:
            progress_store.remove()
        evaluation = evaluate(
            job.target_model.model.to(device),
            job.images.to(device),
            job.suite,
            job.config.threat_model,
            batch_size=job.config.batch_size,
            on_batch=on_batch,
            many_passes=True,
            progress_store=progress_store,
            process_group=process_group,
        )
        job.target_model.model.cpu()
        record = _record(job, evaluation, device, process_group.size)
        if process_group.is_rank_zero:
            write_record(job.path, record)
        process_group.barrier()
    if process_group.is_rank_zero:
        # The lock is gone by now: a process killed here leaves progress, which the next one clears.
        progress_store.remove()
    return record


def progress_files(job: Job, rank: int) -> ProgressFiles:
    """Return where the progress of an evaluation is kept."""
    return ProgressFiles(record=job.path, fingerprint=job.fingerprint, n=len(job.images), rank=rank)


def is_done(job: Job) -> bool:
    """Tell whether an evaluation was made before, and is not being made again."""
    return job.path.exists() and not progress_files(job, 0).files()


def only_ours(job: Job, process_group: ProcessGroup) -> AbstractContextManager[None]:
    """Be the only ones who make an evaluation; the first of the processes has the lock."""
    if not process_group.is_rank_zero:
        return nullcontext()
    lock = job.path.with_name(f".{job.path.stem}.lock")
    return only_writer(lock, str(job.path), "give another --out")


def _record(job: Job, evaluation: Evaluation, device: torch.device, processes: int) -> AttackRecord:
    target_model, config = job.target_model, job.config
    return AttackRecord(
        dataset=job.info.name,
        split="test",
        n=len(job.images),
        num_test=job.num_test,
        num_classes=job.info.num_classes,
        published_test_set=job.info.published,
        data_sha256=job.images.sha256(),
        arch=target_model.arch,
        activation=target_model.activation,
        method=target_model.method,
        weights=target_model.weights,  # type: ignore[arg-type]
        selection=target_model.selection,  # type: ignore[arg-type]
        selected_on=target_model.selected_on,  # type: ignore[arg-type]
        epoch=target_model.epoch,
        seed=target_model.seed,
        run=target_model.run,
        checkpoint_sha256=target_model.checkpoint_sha256,
        weights_sha256=target_model.weights_sha256,
        training_sha256=target_model.training_sha256,
        threat_model=Threat(
            norm=config.threat_model.norm,  # type: ignore[arg-type]
            eps=config.threat_model.eps,
        ),
        suite=job.suite.name,
        parameters=dict(job.suite.parameters),
        attack_seed=config.seed,
        batch_size=config.batch_size,
        clean_correct=evaluation.clean_correct,
        robust_correct=evaluation.robust_correct,
        stages=evaluation.stages,
        verdicts=Verdicts(
            clean=pack_verdicts(evaluation.clean.numpy()),
            robust=pack_verdicts(evaluation.robust.numpy()),
        ),
        warnings=evaluation.warnings,
        software=describe_software(),
        device=describe_device(device),
        precision="float32",
        folded=evaluation.folded,
        processes=processes,
        created=now(),
        seconds=evaluation.seconds,
    )
