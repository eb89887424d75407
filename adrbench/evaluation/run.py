"""Running a planned evaluation and writing its record."""

from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import torch

from adrbench.config.component_plugins import foreign_tokens
from adrbench.evaluation.adversarial import BatchExamples, write_examples
from adrbench.evaluation.batch_files import BatchesInMemory, BatchStore
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.finished import FinishedProgress, remove_foreign_record, remove_outputs
from adrbench.evaluation.job import Job
from adrbench.evaluation.outputs import BatchOutputs
from adrbench.evaluation.plausibility import Accuracy
from adrbench.evaluation.progress import ProgressStore, unique
from adrbench.evaluation.saved_state import saved_state
from adrbench.evaluation.stage_runner import SILENT, ProgressCallbacks
from adrbench.evaluation.state_files import StateLocation, beside_record
from adrbench.models.frozen import Freezer
from adrbench.models.modes import on_device, without_inference_tensors
from adrbench.results.outputs import OutputsFile, outputs_path, write_outputs
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    pack_logits,
    pack_outcomes,
    write_record,
)
from adrbench.runtime.context import Context
from adrbench.runtime.locks import GLOBAL_STATE


def run(
    job: Job,
    context: Context,
    callbacks: ProgressCallbacks = SILENT,
    *,
    force: bool,
    save_adversarial: Path | None,
    keep_outputs: bool = False,
    freezer: Freezer | None = None,
) -> AttackRecord:
    """Run an evaluation and write its record; resume an interrupted one unless `force`.

    Every rank calls this and returns the record; rank 0 writes it, and before it the adversarial
    examples to `save_adversarial`, if given, and the outputs, if they are kept; otherwise those of
    the record that it replaces are removed. Evaluations of one model after another can share the
    `freezer`.

    Raises:
        AdrbenchError: when another process is writing the record.
        RecordError: when the saved progress belongs to another evaluation, or to one whose examples
            were not kept.
        NonFiniteLogitsError: when the model has no finite logits to judge.

    """
    group = context.process_group
    with saved_state(job, beside_record(job), group, force=force) as state:
        if force and group.is_rank_zero:
            remove_foreign_record(job)
        evaluation = perform(
            job,
            context,
            callbacks,
            progress_store=state.progress,
            example_store=state.examples if save_adversarial else None,
            output_store=state.outputs if keep_outputs else None,
            freezer=freezer,
        )
        file = save_outputs(job, evaluation, context)
        record = replace(make_record(job, evaluation, context), outputs=file)
        if group.is_rank_zero:
            if save_adversarial is not None:
                save_examples(save_adversarial, job, evaluation)
            if file is None:
                remove_outputs(job.path)
            write_record(job.path, record)
    return record


def add_outputs(
    job: Job,
    record: AttackRecord,
    context: Context,
    callbacks: ProgressCallbacks = SILENT,
    *,
    freezer: Freezer | None = None,
) -> AttackRecord:
    """Compute the outputs of a finished evaluation, and add their file to its record.

    What else the record contains does not change, except for warnings about the outputs. Every rank
    calls this and returns the record.

    Raises:
        AdrbenchError: when another process is writing the record.

    """
    group = context.process_group
    with saved_state(job, beside_record(job), group, is_finished=True) as state:
        evaluation = perform(
            job,
            context,
            callbacks,
            progress_store=FinishedProgress(record),
            output_store=state.outputs,
            freezer=freezer,
        )
        record = replace(
            record,
            outputs=save_outputs(job, evaluation, context),
            warnings=tuple(unique([*record.warnings, *evaluation.warnings])),
        )
        if group.is_rank_zero:
            write_record(job.path, record)
    return record


def save_outputs(job: Job, evaluation: Evaluation, context: Context) -> OutputsFile | None:
    """Write the outputs of an evaluation on rank 0; return their file on every rank.

    It is None if they were not kept.
    """
    file, group = None, context.process_group
    if evaluation.outputs is not None and group.is_rank_zero:
        file = write_outputs(outputs_path(job.path), evaluation.outputs)
    return group.broadcast(file)


def run_in_memory(
    job: Job,
    context: Context,
    callbacks: ProgressCallbacks = SILENT,
    *,
    location: StateLocation | None,
    keep_adversarial: bool,
    keep_outputs: bool = False,
    freezer: Freezer | None = None,
) -> tuple[Evaluation, AttackRecord]:
    """Run an evaluation and return it with its record; write nothing but its state at `location`.

    Raises:
        AdrbenchError: when another process uses the state.
        RecordError: when the saved progress belongs to another evaluation, or to one whose examples
            were not kept.
        NonFiniteLogitsError: when the model has no finite logits to judge.

    """
    with ExitStack() as stack:
        state = None
        if location is not None:
            state = stack.enter_context(saved_state(job, location, context.process_group))
        examples: BatchStore[BatchExamples] = state.examples if state else BatchesInMemory()
        outputs: BatchStore[BatchOutputs] = state.outputs if state else BatchesInMemory()
        evaluation = perform(
            job,
            context,
            callbacks,
            progress_store=state.progress if state else None,
            example_store=examples if keep_adversarial else None,
            output_store=outputs if keep_outputs else None,
            freezer=freezer,
        )
        return evaluation, make_record(job, evaluation, context)


def perform(
    job: Job,
    context: Context,
    callbacks: ProgressCallbacks = SILENT,
    *,
    progress_store: ProgressStore | None = None,
    example_store: BatchStore[BatchExamples] | None = None,
    output_store: BatchStore[BatchOutputs] | None = None,
    freezer: Freezer | None = None,
) -> Evaluation:
    """Run an evaluation on the device of `context`; the model is moved back afterwards."""
    with torch.inference_mode(False), GLOBAL_STATE:
        model = without_inference_tensors(job.target_model.model)
        with on_device(model, context.device):
            evaluation = evaluate(
                model,
                job.images.to(context.device),
                job.suite,
                job.target_model.threat_model,
                label=job.target_model.label,
                num_classes=job.info.num_classes,
                batch_size=job.config.batch_size,
                callbacks=callbacks,
                optimize_model=True,
                searched=job.searched,
                progress_store=progress_store,
                example_store=example_store,
                output_store=output_store,
                process_group=context.process_group,
                freezer=freezer,
            )
    if evaluation.outputs is None:
        return evaluation
    named = replace(evaluation.outputs, class_names=job.info.class_names)
    return replace(evaluation, outputs=named)


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
        rechecked=evaluation.rechecked,
        repeated=evaluation.repeated,
        folded=evaluation.folded,
        compiled=evaluation.compiled,
        processes=context.process_group.size,
        created=now(),
        seconds=evaluation.seconds,
    )
