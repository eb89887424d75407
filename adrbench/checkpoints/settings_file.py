"""The settings file of a run, the only one that holds the path of the user's data.

The data set of a run is found in it. It is otherwise for people to read: a run is resumed with the
settings in its state.
"""

import json
from pathlib import Path

from adrbench.checkpoints.format import Checkpoint
from adrbench.config.settings import TrainConfig
from adrbench.data.builtin import DATASETS
from adrbench.data.find_source import explain_missing, stored_name
from adrbench.errors import DataError, one_line
from adrbench.registry import is_import_path
from adrbench.runtime.files import MAX_JSON_BYTES, read_limited

CONFIG = "config.json"
#: The key that holds the id of the run.
RUN_ID = "run_id"


def find_dataset(path: Path, checkpoint: Checkpoint) -> str:
    """Return the name or path of the data set that a checkpoint, read from `path`, was trained on.

    A path is in the settings file beside it, or in the checkpoint if an earlier version wrote it.
    A name is used if it is built in, in that settings file, or that of the plugin that provided the
    data.

    Raises:
        DataError: when that data set cannot be used here.

    """
    dataset = checkpoint.config.dataset
    is_known = f"datasets:{dataset}" in checkpoint.plugins
    if dataset not in DATASETS and not is_import_path(dataset):
        stored = _read_dataset(path.with_name(CONFIG), checkpoint)
        dataset, is_known = stored or dataset, is_known or bool(stored)
    if reason := explain_missing(dataset, is_known=is_known):
        raise DataError(f"{path} was trained on {one_line(dataset)}, {reason}")
    return dataset


def read_settings_file(path: Path) -> tuple[TrainConfig, str] | None:
    """Return the settings in a file, and the id of the run ("" in files of early versions).

    None if the file is missing or damaged.
    """
    try:
        stored = json.loads(read_limited(path, MAX_JSON_BYTES))
        run_id = str(stored.pop(RUN_ID, ""))
        return TrainConfig.from_json(stored), run_id
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None


def _read_dataset(path: Path, checkpoint: Checkpoint) -> str | None:
    """Return the data set in the settings file of the checkpoint's run; None where there is none.

    It is used only if it is called what the checkpoint calls it.
    """
    found = read_settings_file(path)
    if found is None:
        return None
    dataset, run_id = found[0].dataset, found[1]
    is_same_run = run_id and run_id == checkpoint.run_id
    is_same_name = stored_name(dataset) == stored_name(checkpoint.config.dataset)
    return dataset if is_same_run and is_same_name else None
