"""From a target to a record: plan an evaluation, run it, write its result."""

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from adrbench.attacks.suites import Suite, build_suite
from adrbench.config.settings import AttackConfig
from adrbench.data import Images, Source
from adrbench.errors import NonFiniteLogitsError, RecordError, UsageError
from adrbench.evaluation.evaluate import Evaluation, OnBatch, evaluate
from adrbench.evaluation.identity import Identity, are_same_logits, first_logits
from adrbench.evaluation.plausibility import Accuracy
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.targets import TargetModel
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    find_contradiction,
    pack_logits,
    pack_outcomes,
    read_record,
    unpack_logits,
    write_record,
)
from adrbench.runtime.context import Context
from adrbench.runtime.files import check_name
from adrbench.runtime.locks import exclusive

logger = logging.getLogger(__name__)

#: What networks raise on images of a size they were not made for.
SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to run: a model, its images, a suite, and the path of the record.

    A record or saved progress belongs to the evaluation if its `identity` is the same, and so are
    the model's `clean_logits` on the first images.
    """

    target_model: TargetModel
    config: AttackConfig
    images: Images
    info: Source
    suite: Suite
    path: Path
    identity: Identity
    clean_logits: Tensor

    @property
    def fingerprint(self) -> str:
        """A fingerprint of everything that the outcomes of a batch depend on."""
        return self.identity.fingerprint()


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
        AdrbenchError: when the name of the record is too long.

    """
    clean_logits = check_fit(target_model, test, info)
    if config.n is not None and config.n > len(test):
        logger.warning(
            f"{info.name} has {len(test):,} test images, not {config.n:,}: all of them are used."
        )
    images = test.first(min(config.n or len(test), len(test)))
    suite = build_suite(config, target_model.threat_model, info.num_classes)
    warn_of_ignored(config, suite)
    identity = identify(target_model, config, images, suite, info=info, num_test=len(test))
    job = Job(
        target_model=target_model,
        config=config,
        images=images,
        info=info,
        suite=suite,
        path=out / record_name(identity, suite, target_model.training.is_known),
        identity=identity,
        clean_logits=clean_logits[: len(images)],
    )
    check_name(progress_files(job, 0).own_file)
    return job


def identify(
    target_model: TargetModel,
    config: AttackConfig,
    images: Images,
    suite: Suite,
    *,
    info: Source,
    num_test: int,
) -> Identity:
    """Return the identity of an evaluation."""
    training = target_model.training
    return Identity(
        run=target_model.run,
        method=training.method,
        seed=training.seed,
        selection=training.selection,
        epoch=training.epoch,
        weights=training.weights,
        weights_sha256=target_model.weights_sha256,
        arch=target_model.arch,
        activation=target_model.activation,
        dataset=info.name,
        n=len(images),
        num_test=num_test,
        data_sha256=images.sha256(),
        threat_model=target_model.threat_model,
        suite=suite.name,
        parameters=suite.parameters,
        attack_seed=config.seed,
        batch_size=config.batch_size,
    )


def record_name(identity: Identity, suite: Suite, is_known: bool) -> str:
    """Return the file name of a record: readable, and unique to what is evaluated."""
    parts = [identity.selection, identity.weights] if is_known else []
    stem = "-".join([identity.run, *parts, suite.name]).replace(":", "-").replace("/", "-")
    unique = identity if suite.batch_dependent else replace(identity, batch_size=None)
    return f"{stem}-{unique.fingerprint()[:8]}.json"


def check_fit(target_model: TargetModel, images: Images, info: Source) -> Tensor:
    """Return the clean logits of the first images, (N, num_classes).

    Raises:
        UsageError: when the model does not take these images or has another number of classes.

    """
    try:
        logits = first_logits(target_model.model, images)
    except SHAPE_ERRORS as error:
        shape = tuple(images.pixels.shape[1:])
        raise UsageError(
            f"{target_model.label} does not take images of shape {shape} (channels, "
            f"height, width) from {info.name}: give the --dataset it was trained for."
        ) from error
    if logits.shape[1] != info.num_classes:
        raise UsageError(
            f"{target_model.label} has {logits.shape[1]} classes, {info.name} has "
            f"{info.num_classes}: give the --dataset it was trained for."
        )
    return logits


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
        RecordError: when the saved progress is that of another evaluation.
        NonFiniteLogitsError: when the model has no finite logits to judge.

    """
    process_group = context.process_group
    lock = job.path.with_name(f".{job.path.stem}.lock")
    with exclusive(
        lock, of=str(job.path), instead="give another --out", process_group=process_group
    ):
        progress_store = progress_files(job, process_group.rank)
        if not force:
            progress_store.load()  # on every rank, so that all of them raise its errors
        elif process_group.is_rank_zero:
            progress_store.remove()
            remove_foreign_record(job)
        try:
            evaluation = evaluate(
                job.target_model.model.to(context.device),
                job.images.to(context.device),
                job.suite,
                job.target_model.threat_model,
                label=job.target_model.label,
                batch_size=job.config.batch_size,
                on_batch=on_batch,
                optimize_model=True,
                progress_store=progress_store,
                process_group=process_group,
            )
        except NonFiniteLogitsError:
            if process_group.is_rank_zero:
                progress_store.remove()
            raise
        job.target_model.model.cpu()
        record = _record(job, evaluation, context)
        if process_group.is_rank_zero:
            write_record(job.path, record)
        process_group.barrier()
    if process_group.is_rank_zero:
        # Progress left by a kill before this line is removed when the command is given again.
        progress_store.remove()
    return record


def find_finished(job: Job, context: Context) -> AttackRecord | None:
    """Return the record of an evaluation; None if there is none, or it was being redone.

    Raises:
        RecordError: when the file is broken, or the record of another evaluation.

    """
    exists, is_redone = context.process_group.broadcast(
        (job.path.exists(), bool(progress_files(job, 0).files()))
    )
    record = read_own_record(job) if exists else None
    return None if is_redone else record


def remove_foreign_record(job: Job) -> None:
    """Remove a file in place of the record that is broken or belongs to another evaluation.

    An evaluation that replaces it and is interrupted can then be resumed.
    """
    try:
        read_own_record(job)
    except RecordError:
        job.path.unlink(missing_ok=True)


def read_own_record(job: Job) -> AttackRecord:
    """Read the record of an evaluation.

    Raises:
        RecordError: when the file is broken, or the record of another evaluation.

    """
    try:
        record = read_record(job.path)
    except RecordError as error:
        reason = str(error).rstrip(".")
        raise RecordError(f"{reason}: give --force to make it again.") from error
    if not isinstance(record, AttackRecord):
        raise RecordError(f"{job.path} is not the record of an attack: {REPLACE}")
    if contradiction := find_contradiction(record):
        raise RecordError(
            f"{job.path} is damaged ({contradiction}): give --force to make it again."
        )
    if difference := describe_difference(job, record):
        raise RecordError(
            f"{job.path} is the record of another evaluation ({difference}): {REPLACE}"
        )
    return record


#: What to do about a record that is not that of the evaluation.
REPLACE = "give another --out, or --force to replace it."


def describe_difference(job: Job, record: AttackRecord) -> str | None:
    """Return in words how the evaluation of a record differs from `job`; None if it does not."""
    is_dependent = job.suite.batch_dependent
    ours = job.identity if is_dependent else replace(job.identity, batch_size=None)
    theirs = Identity.of_record(record, batch_dependent=is_dependent)
    if difference := theirs.describe_difference(ours):
        return difference
    if record.clean_logits is not None:
        try:
            held = torch.from_numpy(unpack_logits(record.clean_logits, record.num_classes))
        except RecordError as error:
            return str(error)
        if not are_same_logits(held, job.clean_logits):
            return "the model has the same weights and other outputs"
    return None


def progress_files(job: Job, rank: int) -> ProgressFiles:
    """Return the files that hold the progress of an evaluation."""
    return ProgressFiles(
        record=job.path,
        fingerprint=job.fingerprint,
        n=len(job.images),
        rank=rank,
        clean_logits=job.clean_logits,
    )


def _record(job: Job, evaluation: Evaluation, context: Context) -> AttackRecord:
    target_model, training, identity = job.target_model, job.target_model.training, job.identity
    return AttackRecord(
        **{field.name: getattr(identity, field.name) for field in fields(identity)},
        split="test",
        num_classes=job.info.num_classes,
        published_test_set=job.info.published,
        selected_on=training.selected_on,
        checkpoint_sha256=target_model.checkpoint_sha256,
        training_sha256=training.settings_sha256,
        training_images_sha256=training.images_sha256,
        label=training.label,
        clean_correct=evaluation.clean_correct,
        robust_correct=evaluation.robust_correct,
        stages=evaluation.stages,
        verdicts=Outcomes(
            clean=pack_outcomes(evaluation.clean.numpy()),
            robust=pack_outcomes(evaluation.robust.numpy()),
        ),
        clean_logits=pack_logits(job.clean_logits.numpy()),
        warnings=(
            *evaluation.warnings,
            *training.find_doubts(
                Accuracy(correct=evaluation.clean_correct, n=len(job.images)),
                num_classes=job.info.num_classes,
            ),
        ),
        software=describe_software(),
        device=describe_device(context.device),
        folded=evaluation.folded,
        processes=context.process_group.size,
        created=now(),
        seconds=evaluation.seconds,
    )
