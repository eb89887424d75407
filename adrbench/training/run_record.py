"""The record of a finished training run."""

from pathlib import Path

from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import TrainRecord, write_record
from adrbench.training.resume_checks import read_own_record
from adrbench.training.state import Run, TrainState, run_label


def make_record(run: Run, state: TrainState) -> TrainRecord:
    """Return the record of a finished run."""
    seconds = sum(row.seconds for row in state.history)
    images = state.steps_done * run.config.batch_size
    return TrainRecord(
        run=run.directory.name,
        run_id=state.run_id,
        dataset=run.dataset.name,
        arch=run.config.arch,
        method=run.config.method,
        seed=run.config.seed,
        config=run.config.to_json(),
        training_images_sha256=run.dataset.training_images_sha256,
        label=run_label(run),
        history=tuple(row.to_json() for row in state.history),
        num_train=len(run.dataset.train),
        num_val=len(run.dataset.val),
        seconds=seconds,
        images_per_second=images / seconds,
        software=describe_software(),
        device=describe_device(run.context.device),
        precision=run.config.precision,
        sessions=tuple(state.sessions),
        created=now(),
    )


def write_own_record(path: Path, run: Run, state: TrainState, record: TrainRecord) -> None:
    """Write the `record` of a finished run unless the file holds it already.

    Raises:
        RecordError: where the file is the record of another run.

    """
    if path.exists():
        held = read_own_record(path, run, state)
        if (held.rows(), held.sessions) == (record.rows(), record.sessions):
            return
    write_record(path, record)
