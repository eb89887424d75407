"""Where the state of an unfinished evaluation is saved: its progress, examples and outputs."""

from dataclasses import dataclass
from pathlib import Path

from adrbench.errors import argument
from adrbench.evaluation.adversarial import BatchExamples, ExampleForm
from adrbench.evaluation.batch_files import BatchFiles
from adrbench.evaluation.job import Job
from adrbench.evaluation.outputs import BatchOutputs, OutputForm
from adrbench.evaluation.progress import ProgressFiles


@dataclass(frozen=True, kw_only=True)
class StateLocation:
    """Where the state of an unfinished evaluation is saved, and parts of messages about it.

    Its files have names that begin with that of `stem`. `written` names the state, `elsewhere`
    says how to choose another location, and `remedy` what to do about the state of another
    evaluation.
    """

    stem: Path
    written: str
    elsewhere: str
    remedy: str


def beside_record(job: Job) -> StateLocation:
    """Return the default location of the state: hidden files in the directory of the record."""
    return StateLocation(
        stem=job.path.with_name(f".{job.path.stem}"),
        written=str(job.path),
        elsewhere=f"give another {argument('out')}",
        remedy=f"give another {argument('out')}, or {argument('force', True)} to start over",
    )


def example_files(job: Job, location: StateLocation | None = None) -> BatchFiles[BatchExamples]:
    """Return the files that store the adversarial examples of an unfinished evaluation."""
    location = location or beside_record(job)
    return BatchFiles(
        stem=location.stem,
        form=ExampleForm(
            images=job.images,
            threat=job.target_model.threat_model,
            batch_size=job.config.batch_size,
        ),
        fingerprint=job.state_fingerprint,
        what="adversarial examples",
        remedy=location.remedy,
    )


def output_files(job: Job, location: StateLocation | None = None) -> BatchFiles[BatchOutputs]:
    """Return the files that store the outputs of the batches of an unfinished evaluation."""
    location = location or beside_record(job)
    return BatchFiles(
        stem=location.stem.with_name(f"{location.stem.name}.outputs"),
        form=OutputForm(
            images=job.images,
            threat=job.target_model.threat_model,
            num_classes=job.info.num_classes,
            batch_size=job.config.batch_size,
        ),
        fingerprint=job.state_fingerprint,
        what="outputs",
        remedy=location.remedy,
    )


def progress_files(job: Job, rank: int, location: StateLocation | None = None) -> ProgressFiles:
    """Return the files that store the progress of an evaluation."""
    location = location or beside_record(job)
    return ProgressFiles(
        stem=location.stem,
        fingerprint=job.state_fingerprint,
        n=len(job.images),
        rank=rank,
        clean_logits=job.clean_logits,
        remedy=location.remedy,
    )
