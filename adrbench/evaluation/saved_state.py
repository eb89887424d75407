"""The saved state of an unfinished evaluation: its files, who may write them, and their removal."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adrbench.errors import NonFiniteLogitsError, UsageError
from adrbench.evaluation.adversarial import BatchExamples
from adrbench.evaluation.batch_files import BatchFiles
from adrbench.evaluation.job import Job
from adrbench.evaluation.outputs import BatchOutputs
from adrbench.evaluation.progress import SUFFIX, ProgressFiles
from adrbench.evaluation.state_files import (
    StateLocation,
    example_files,
    output_files,
    progress_files,
)
from adrbench.printable import is_printable
from adrbench.runtime.files import check_may_write, check_name, check_writable
from adrbench.runtime.locks import exclusive
from adrbench.runtime.process_group import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The files of an unfinished evaluation."""

    progress: ProgressFiles
    examples: BatchFiles[BatchExamples]
    outputs: BatchFiles[BatchOutputs]

    def remove(self) -> None:
        """Remove the files of all ranks.

        The progress comes first: examples without progress are never used, but progress without its
        examples would be refused. Nothing is removed once another process may use them.
        """
        check_may_write()
        self.progress.remove()
        self.examples.remove()
        self.outputs.remove()


@contextmanager
def saved_state(
    job: Job,
    location: StateLocation,
    process_group: ProcessGroup,
    *,
    force: bool = False,
    is_finished: bool = False,
) -> Iterator[SavedState]:
    """Yield the state from which an evaluation resumes; remove it once that is over.

    Within the context no other process uses the state. It is kept if the context raises, except for
    a NonFiniteLogitsError, after which there is nothing to resume. `force` discards what an earlier
    process left. Examples and outputs without progress are discarded too, since they may be of
    another evaluation. If it `is_finished`, only the outputs of its record are computed, and those
    of its batches are kept, while others, such as those of another batch size, are discarded.

    Raises:
        AdrbenchError: when another process uses the state.
        RecordError: when the saved progress belongs to another evaluation.

    """
    stem, rank_zero = location.stem, process_group.is_rank_zero
    with exclusive(
        stem.with_name(f"{stem.name}.lock"),
        of=location.written,
        instead=location.elsewhere,
        process_group=process_group,
    ):
        state = SavedState(
            progress=progress_files(job, process_group.rank, location),
            examples=example_files(job, location),
            outputs=output_files(job, location),
        )
        # Every rank loads the progress, so that all of them raise its errors.
        is_resumed = not force and (is_finished or state.progress.load() is not None)
        if rank_zero and not is_resumed:
            state.remove()
        if rank_zero and is_finished:
            state.outputs.remove_foreign()
        try:
            yield state
        except NonFiniteLogitsError:
            if rank_zero:
                state.remove()
            raise
        process_group.barrier()
        if rank_zero:
            state.remove()


def locate_state(state_path: str | Path) -> StateLocation:
    """Return the location that a caller chose, with or without the suffix of the progress files.

    Raises:
        UsageError: when `state_path` is not the path of a file.
        AdrbenchError: when files cannot be written there.

    """
    text = str(state_path)
    stem = Path(text.removesuffix(SUFFIX))
    if not isinstance(state_path, str | Path) or not stem.name or not is_printable(text):
        raise UsageError(
            f"state_path is {state_path!r}: give the path of a file, such as 'my-evaluation'."
        )
    if stem.is_dir():
        raise UsageError(
            f"state_path is the directory {str(stem)!r}: give the path of a file, such as "
            f"{str(stem / 'my-evaluation')!r}."
        )
    location = StateLocation(
        stem=stem,
        written=f"the state at {stem}",
        elsewhere="give another state_path",
        remedy="give another state_path, or remove the file",
    )
    check_writable(stem.parent)
    check_name(stem.with_name(f"{stem.name}.0{SUFFIX}"))
    return location
