"""The settings file of a run, the only one that holds the path of the user's data."""

import json
from pathlib import Path

from adrbench.checkpoints.format import Checkpoint
from adrbench.config.settings import TrainConfig
from adrbench.data.builtin import DATASETS
from adrbench.data.find_source import explain_missing, stored_name
from adrbench.errors import DataError
from adrbench.registry import is_import_path
from adrbench.runtime.files import MAX_JSON_BYTES, read_limited

CONFIG = "config.json"
#: The key that holds the id of the run.
RUN_ID = "run_id"


def find_dataset(path: Path, checkpoint: Checkpoint) -> str:
    """Return the name or path of the data set that a checkpoint, read from `path`, was trained on.

    A path is in the settings file beside it, or in the checkpoint if an earlier version wrote it.

    Raises:
        DataError: when that data set cannot be used here.

    """
    dataset = checkpoint.config.dataset
    if dataset not in DATASETS and not is_import_path(dataset):
        dataset = _read_dataset(path.with_name(CONFIG), checkpoint) or dataset
    if reason := explain_missing(dataset):
        raise DataError(f"{path} was trained on {dataset}, {reason}")
    return dataset


def _read_dataset(path: Path, checkpoint: Checkpoint) -> str | None:
    """Return the data set in the settings file of the checkpoint's run; None where there is none.

    It is used only if it is called what the checkpoint calls it.
    """
    try:
        stored = json.loads(read_limited(path, MAX_JSON_BYTES))
        run_id = stored.pop(RUN_ID, "")
        dataset = TrainConfig.from_json(stored).dataset
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    is_same_run = run_id and run_id == checkpoint.run_id
    is_same_name = stored_name(dataset) == stored_name(checkpoint.config.dataset)
    return dataset if is_same_run and is_same_name else None
