"""From a target to a record: plan an evaluation, run it, write its result."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adrbench.attacks.suites import Suite, build_suite
from adrbench.config.settings import AttackConfig
from adrbench.data import Images, Source, to_float
from adrbench.errors import UsageError
from adrbench.evaluation.evaluate import Evaluation, OnBatch, evaluate
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.targets import TargetModel
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import AttackRecord, Outcomes, pack_outcomes, write_record
from adrbench.runtime.context import Context
from adrbench.runtime.hashing import hash_json
from adrbench.runtime.locks import exclusive

logger = logging.getLogger(__name__)

#: What networks raise on images of a size they were not made for.
SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to run: a model, its images, a suite, and the path of the record.

    `num_test` is the size of the test set that `images` are the first of. `fingerprint` covers
    everything that the outcomes of a batch depend on.
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
    """Return the evaluation of `target_model` on the `test` images of `info`, recorded in `out`.

    Raises:
        UsageError: when the suite or the model does not fit the images.

    """
    check_fit(target_model, test, info)
    if config.n is not None and config.n > len(test):
        logger.warning(
            f"{info.name} has {len(test):,} test images, not {config.n:,}: all of them are used."
        )
    images = test.first(min(config.n or len(test), len(test)))
    suite = build_suite(config, target_model.threat_model, info.num_classes)
    warn_of_ignored(config, suite)
    identity = {
        "model": [target_model.weights_sha256, target_model.arch, target_model.activation],
        "weights": target_model.training.weights,
        "data": images.sha256(),
        "norm": target_model.threat_model.norm,
        "eps": target_model.threat_model.eps,
        "suite": suite.name,
        "parameters": dict(suite.parameters),
        "seed": config.seed,
    }
    batch_size = config.batch_size if suite.batch_dependent else None
    return Job(
        target_model=target_model,
        config=config,
        images=images,
        info=info,
        num_test=len(test),
        suite=suite,
        path=out / record_name(target_model, suite, identity | {"batch_size": batch_size}),
        fingerprint=hash_json(identity | {"batch_size": config.batch_size}),
    )


def record_name(target_model: TargetModel, suite: Suite, identity: dict[str, Any]) -> str:
    """Return the file name of a record: readable, and unique to what is evaluated."""
    training = target_model.training
    parts = [training.selection, training.weights] if training.is_known else []
    stem = "-".join([target_model.run, *parts, suite.name]).replace(":", "-").replace("/", "-")
    return f"{stem}-{hash_json(identity)[:8]}.json"


def check_fit(target_model: TargetModel, images: Images, info: Source) -> None:
    """Check that the model takes these images and has their number of classes.

    Raises:
        UsageError: when it does not.

    """
    one = to_float(images.first(1).pixels)
    try:
        with torch.no_grad():
            logits = target_model.model(one)
    except SHAPE_ERRORS as error:
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
    """Log a warning for each setting that was given and that `suite` does not use."""
    given = {"alpha": config.alpha is not None, "restarts": config.restarts > 1}
    for name, is_given in given.items():
        if is_given and name not in suite.parameters:
            logger.warning(f"--{name} is ignored: suite {suite.name} does not use it.")


def run(job: Job, context: Context, on_batch: OnBatch, *, force: bool) -> AttackRecord:
    """Run an evaluation and write its record; resume an interrupted one unless `force`.

    Every rank calls this and returns the record; rank 0 writes it.

    Raises:
        AdrbenchError: when another process is writing the record.

    """
    process_group = context.process_group
    lock = job.path.with_name(f".{job.path.stem}.lock")
    with exclusive(
        lock, of=str(job.path), instead="give another --out", process_group=process_group
    ):
        progress_store = progress_files(job, process_group.rank)
        if force and process_group.is_rank_zero:
            progress_store.remove()
        evaluation = evaluate(
            job.target_model.model.to(context.device),
            job.images.to(context.device),
            job.suite,
            job.target_model.threat_model,
            batch_size=job.config.batch_size,
            on_batch=on_batch,
            optimize_model=True,
            progress_store=progress_store,
            process_group=process_group,
        )
        job.target_model.model.cpu()
        record = _record(job, evaluation, context)
        if process_group.is_rank_zero:
            write_record(job.path, record)
        process_group.barrier()
    if process_group.is_rank_zero:
        # Progress left by a kill before this line is removed when the command is given again.
        progress_store.remove()
    return record


def is_done(job: Job, context: Context) -> bool:
    """Return whether the record exists and is not being redone, the same on all ranks."""
    is_recorded = job.path.exists() and not progress_files(job, 0).files()
    return context.process_group.broadcast(is_recorded)


def progress_files(job: Job, rank: int) -> ProgressFiles:
    """Return the files that hold the progress of an evaluation."""
    return ProgressFiles(record=job.path, fingerprint=job.fingerprint, n=len(job.images), rank=rank)


def _record(job: Job, evaluation: Evaluation, context: Context) -> AttackRecord:
    target_model, training, config = job.target_model, job.target_model.training, job.config
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
        method=training.method,
        weights=training.weights,
        selection=training.selection,
        selected_on=training.selected_on,
        epoch=training.epoch,
        seed=training.seed,
        run=target_model.run,
        checkpoint_sha256=target_model.checkpoint_sha256,
        weights_sha256=target_model.weights_sha256,
        training_sha256=training.settings_sha256,
        training_images_sha256=training.images_sha256,
        label=training.label,
        threat_model=target_model.threat_model,
        suite=job.suite.name,
        parameters=dict(job.suite.parameters),
        attack_seed=config.seed,
        batch_size=config.batch_size,
        clean_correct=evaluation.clean_correct,
        robust_correct=evaluation.robust_correct,
        stages=evaluation.stages,
        verdicts=Outcomes(
            clean=pack_outcomes(evaluation.clean.numpy()),
            robust=pack_outcomes(evaluation.robust.numpy()),
        ),
        warnings=evaluation.warnings,
        software=describe_software(),
        device=describe_device(context.device),
        precision="float32",
        folded=evaluation.folded,
        processes=context.process_group.size,
        created=now(),
        seconds=evaluation.seconds,
    )
