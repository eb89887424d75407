"""From weights to a record: plan an evaluation, make it, write its result."""

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adrbench.attacks.suites import Suite, build_suite
from adrbench.config import AttackConfig
from adrbench.datasets import Images, Source, to_float
from adrbench.errors import UsageError
from adrbench.evaluation import Evaluation, OnBatch, evaluate
from adrbench.files import only_writer
from adrbench.notes import Say
from adrbench.progress import KeptInFiles
from adrbench.provenance import describe_device, describe_software, now
from adrbench.records import AttackRecord, Threat, Verdicts, pack_verdicts, write_record
from adrbench.subjects import Subject
from adrbench.world import World

#: What networks raise on images of a size they were not made for.
UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to make: a subject, its images, a suite, and where the record goes.

    `fingerprint` is of all that the verdicts of a batch depend on.
    """

    subject: Subject
    config: AttackConfig
    images: Images
    info: Source
    num_test: int
    suite: Suite
    path: Path
    fingerprint: str


def plan(
    subject: Subject, config: AttackConfig, *, test: Images, info: Source, out: Path, say: Say
) -> Job:
    """Return the evaluation of `subject` on `test` images, its model known to fit them.

    Raises:
        UsageError: when the suite or the model does not fit the images.

    """
    check_fit(subject, test, info)
    if config.n is not None and config.n > len(test):
        say(f"{info.name} has {len(test):,} test images, not {config.n:,}: all of them are used.")
    images = test.first(min(config.n or len(test), len(test)))
    suite = build_suite(config, info.num_classes)
    say_ignored(config, suite, say)
    identity = {
        "model": [subject.weights_sha256, subject.arch, subject.activation],
        "weights": subject.weights,
        "data": images.sha256(),
        "norm": config.threat_model.norm,
        "eps": config.threat_model.eps,
        "suite": suite.name,
        "parameters": dict(suite.parameters),
        "seed": config.seed,
        "batch_size": config.batch_size if suite.batch_dependent else None,
    }
    digest = sha256_of(identity)
    parts = [subject.run, subject.selection, subject.weights, suite.name]
    if subject.weights == "file":
        parts = [subject.run, suite.name]
    stem = "-".join(parts).replace(":", "-").replace("/", "-")
    return Job(
        subject=subject,
        config=config,
        images=images,
        info=info,
        num_test=len(test),
        suite=suite,
        path=out / f"{stem}-{digest[:8]}.json",
        fingerprint=sha256_of(identity | {"batch_size": config.batch_size}),
    )


def sha256_of(identity: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of plain values by name."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def check_fit(subject: Subject, images: Images, info: Source) -> None:
    """Raise UsageError unless the model takes these images and knows these classes."""
    one = to_float(images.first(1).pixels)
    try:
        with torch.no_grad():
            logits = subject.model(one)
    except UNFIT as error:
        raise UsageError(
            f"{subject.label} does not take images of shape {tuple(one.shape[1:])} (channels, "
            f"height, width) from {info.name}: give the --dataset it was trained for."
        ) from error
    if logits.shape[1] != info.num_classes:
        raise UsageError(
            f"{subject.label} has {logits.shape[1]} classes, {info.name} has "
            f"{info.num_classes}: give the --dataset it was trained for."
        )


def say_ignored(config: AttackConfig, suite: Suite, say: Say) -> None:
    """Tell of the settings that were given and that `suite` does not use."""
    given = {"alpha": config.alpha is not None, "restarts": config.restarts > 1}
    for name, is_given in given.items():
        if is_given and name not in suite.parameters:
            say(f"--{name} is ignored: suite {suite.name} does not use it.")


def run(
    job: Job, device: torch.device, on_batch: OnBatch, say: Say, *, world: World, force: bool
) -> AttackRecord:
    """Make the evaluation, going on where it was interrupted unless `force`; write its record.

    Every process of a `world` calls this and gets the record, the first one writes it.

    Raises:
        AdrbenchError: when somebody else is making it.

    """
    with only_ours(job, world, say):
        keeper = keeper_of(job, world.rank, say)
        if force and world.is_first:
            keeper.remove()
        evaluation = evaluate(
            job.subject.model.to(device),
            job.images.to(device),
            job.suite,
            job.config.threat_model,
            batch_size=job.config.batch_size,
            on_batch=on_batch,
            many_passes=True,
            say=say,
            keeper=keeper,
            world=world,
        )
        job.subject.model.cpu()
        record = _record(job, evaluation, device, world.size)
        if world.is_first:
            write_record(job.path, record)
        world.wait()
    if world.is_first:
        # The lock is gone by now: a process killed here leaves progress, which the next one clears.
        keeper.remove()
    return record


def keeper_of(job: Job, rank: int, say: Say) -> KeptInFiles:
    """Return where the progress of an evaluation is kept."""
    return KeptInFiles(
        record=job.path, fingerprint=job.fingerprint, n=len(job.images), rank=rank, say=say
    )


def is_done(job: Job) -> bool:
    """Tell whether an evaluation was made before, and is not being made again."""
    return job.path.exists() and not keeper_of(job, 0, lambda text: None).files()


def only_ours(job: Job, world: World, say: Say) -> AbstractContextManager[None]:
    """Be the only ones who make an evaluation; the first of the processes has the lock."""
    if not world.is_first:
        return nullcontext()
    lock = job.path.with_name(f".{job.path.stem}.lock")
    return only_writer(lock, str(job.path), "give another --out", say)


def _record(job: Job, evaluation: Evaluation, device: torch.device, processes: int) -> AttackRecord:
    subject, config = job.subject, job.config
    return AttackRecord(
        dataset=job.info.name,
        split="test",
        n=len(job.images),
        num_test=job.num_test,
        num_classes=job.info.num_classes,
        published_test_set=job.info.published,
        data_sha256=job.images.sha256(),
        arch=subject.arch,
        activation=subject.activation,
        method=subject.method,
        weights=subject.weights,  # type: ignore[arg-type]
        selection=subject.selection,  # type: ignore[arg-type]
        selected_on=subject.selected_on,  # type: ignore[arg-type]
        epoch=subject.epoch,
        seed=subject.seed,
        run=subject.run,
        checkpoint_sha256=subject.checkpoint_sha256,
        weights_sha256=subject.weights_sha256,
        training_sha256=subject.training_sha256,
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
