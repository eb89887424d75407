"""Running a planned evaluation and writing its record."""

from dataclasses import dataclass, fields
from pathlib import Path

from adrbench.config.component_plugins import foreign_tokens
from adrbench.errors import NonFiniteLogitsError, argument
from adrbench.evaluation.adversarial import ExampleStore, write_examples
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.finished import remove_foreign_record
from adrbench.evaluation.jobs import Job, example_files, progress_files
from adrbench.evaluation.plausibility import Accuracy
from adrbench.evaluation.progress import ProgressStore
from adrbench.evaluation.stage_runner import OnBatch, OnPass
from adrbench.models.modes import on_device
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    pack_logits,
    pack_outcomes,
    write_record,
)
from adrbench.runtime.context import Context
from adrbench.runtime.locks import exclusive


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Callbacks that display the progress of an evaluation (see `evaluate`)."""

    on_batch: OnBatch = lambda stage, done, total, survivors: None
    on_pass: OnPass = lambda stage, done, expected, batch_size: None


def run(
    job: Job, context: Context, watcher: Watcher, *, force: bool, save_adversarial: Path | None
) -> AttackRecord:
    """Run an evaluation and write its record; resume an interrupted one unless `force`.

    Every rank calls this and returns the record; rank 0 writes it, and before it the adversarial
    examples to `save_adversarial`, if given.

    Raises:
        AdrbenchError: when another process is writing the record.
        RecordError: when the saved progress belongs to another evaluation, or to one whose examples
            were not kept.
        NonFiniteLogitsError: when the model has no finite logits to judge.

    """
    process_group = context.process_group
    lock = job.path.with_name(f".{job.path.stem}.lock")
    with exclusive(
        lock,
        of=str(job.path),
        instead=f"give another {argument('out')}",
        process_group=process_group,
    ):
        progress_store, examples = progress_files(job, process_group.rank), example_files(job)

        def remove_progress() -> None:
            if process_group.is_rank_zero:
                progress_store.remove()
                examples.remove()

        if not force:
            progress_store.load()  # on every rank, so that all of them raise its errors
        else:
            remove_progress()
            if process_group.is_rank_zero:
                remove_foreign_record(job)
        try:
            evaluation = perform(
                job,
                context,
                watcher,
                progress_store=progress_store,
                example_store=examples if save_adversarial else None,
            )
        except NonFiniteLogitsError:
            remove_progress()
            raise
        record = make_record(job, evaluation, context)
        if process_group.is_rank_zero:
            if save_adversarial is not None:
                save_examples(save_adversarial, job, evaluation)
            write_record(job.path, record)
        process_group.barrier()
    remove_progress()  # that left by a kill before this line when the command is given again
    return record


def perform(
    job: Job,
    context: Context,
    watcher: Watcher,
    *,
    progress_store: ProgressStore | None = None,
    example_store: ExampleStore | None = None,
) -> Evaluation:
    """Run an evaluation on the device of `context`; the model is moved back afterwards."""
    model = job.target_model.model
    with on_device(model, context.device):
        return evaluate(
            model,
            job.images.to(context.device),
            job.suite,
            job.target_model.threat_model,
            label=job.target_model.label,
            batch_size=job.config.batch_size,
            on_batch=watcher.on_batch,
            on_pass=watcher.on_pass,
            optimize_model=True,
            progress_store=progress_store,
            example_store=example_store,
            process_group=context.process_group,
        )


def save_examples(path: Path, job: Job, evaluation: Evaluation) -> None:
    """Write the adversarial examples of an evaluation, by rename."""
    assert evaluation.adversarial is not None
    write_examples(
        path,
        evaluation.adversarial,
        labels=job.images.labels,
        clean=evaluation.clean,
        robust=evaluation.robust,
    )


def make_record(job: Job, evaluation: Evaluation, context: Context) -> AttackRecord:
    """Return the record of an evaluation."""
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
        software=describe_software(
            {
                "suites": [job.config.suite],
                "architectures": [identity.arch],
                "datasets": [target_model.dataset],
                "methods": foreign_tokens(identity.method),
            }
        ),
        device=describe_device(context.device),
        folded=evaluation.folded,
        processes=context.process_group.size,
        created=now(),
        seconds=evaluation.seconds,
    )
