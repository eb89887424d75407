"""The record of a finished training run: creating, writing and checking it."""

from pathlib import Path

from adrbench.config.component_plugins import foreign_tokens
from adrbench.config.settings import TrainConfig
from adrbench.data.find_source import stored_name
from adrbench.errors import RecordError, argument
from adrbench.results.provenance import describe_device, describe_software, now
from adrbench.results.records import TrainRecord, read_record, write_record
from adrbench.training.state import Run, TrainState, run_label


def make_record(run: Run, state: TrainState) -> TrainRecord:
    """Return the record of a finished run, without the path of the user's data."""
    seconds = sum(row.seconds for row in state.history)
    images = state.steps_done * run.config.batch_size
    return TrainRecord(
        run=run.directory.name,
        run_id=state.run_id,
        dataset=run.dataset.name,
        arch=run.config.arch,
        method=run.config.method,
        seed=run.config.seed,
        config=run.config.to_json() | {"dataset": stored_name(run.config.dataset)},
        training_images_sha256=run.dataset.training_images_sha256,
        label=run_label(run),
        history=tuple(row.to_json() for row in state.history),
        num_train=len(run.dataset.train),
        num_val=len(run.dataset.val),
        seconds=seconds,
        images_per_second=images / seconds,
        software=describe_software(
            {
                "architectures": [run.config.arch],
                "datasets": [run.config.dataset],
                "methods": foreign_tokens(run.config.method),
            }
        ),
        device=describe_device(run.context.device),
        precision=run.config.precision,
        sessions=tuple(state.sessions),
        created=now(),
    )


def check_own_record(path: Path, run: Run, state: TrainState) -> None:
    """Check that the file at `path` is missing or the record of this run so far.

    Raises:
        RecordError: if it is damaged or belongs to another run.

    """
    if not path.exists():
        return
    try:
        record = read_record(path)
    except RecordError as error:
        reason = str(error).rstrip(".")
        raise RecordError(
            f"{reason}: move it away, or give {argument('force', True)} to start over."
        ) from error
    try:
        theirs = TrainConfig.from_json(record.config) if isinstance(record, TrainRecord) else None
        rows = record.rows() if isinstance(record, TrainRecord) else []
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged ({error}): move it away, or give {argument('force', True)} to "
            "start over."
        ) from error
    if not isinstance(record, TrainRecord) or theirs is None or theirs.differences(run.config):
        raise RecordError(
            f"{path} is the record of another run: give another {argument('name')} or "
            f"{argument('results')}, or {argument('force', True)} "
            "to replace it."
        )
    is_own = record.run_id == state.run_id and rows[: state.epochs_done] == state.history
    if not state.steps_done or not is_own:
        raise RecordError(
            f"{path} is the record of another run with the same settings as the one in "
            f"{run.directory}: give another {argument('name')} or "
            f"{argument('results')}, or {argument('force', True)} to replace it."
        )


def write_own_record(path: Path, record: TrainRecord) -> TrainRecord:
    """Write the `record` of a finished run unless its file already contains it; return the file's.

    The one in the file has the time of its creation and the software of that time.
    """
    if path.exists():
        held = read_record(path)
        if isinstance(held, TrainRecord) and (held.rows(), held.sessions) == (
            record.rows(),
            record.sessions,
        ):
            return held
    write_record(path, record)
    return record
