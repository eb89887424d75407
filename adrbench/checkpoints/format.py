"""The checkpoint format: a plain dictionary of tensors, numbers and strings.

A file is written by rename and read without executing anything in it. It has a schema number, a
checksum of all its content, and all that is needed to rebuild the model and find its data set.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adrbench.checkpoints.torch_files import TorchFile, describe_unread, read_torch_file
from adrbench.config.component_plugins import component_tokens, find_component, foreign_tokens
from adrbench.config.method import WEIGHTS
from adrbench.config.settings import TrainConfig, nest_method_settings
from adrbench.data import dataset_name
from adrbench.data.find_source import stored_name
from adrbench.errors import (
    AdrbenchError,
    CheckpointError,
    UsageError,
    argument,
    list_first,
    one_line,
)
from adrbench.results.history import Counts
from adrbench.results.migrations import label_from_run_name
from adrbench.runtime.files import is_file_name, write_atomically
from adrbench.runtime.hashing import tensor_bytes
from adrbench.runtime.typed_json import from_json, to_json

SCHEMA = 5
MARK = "adrbench checkpoint"
BEST, LAST = "best.pt", "last.pt"

#: The largest sizes of a model in a file; its weights are compared only once it is built.
MAX_CLASSES, MAX_CHANNELS, MAX_IMAGE_SIZE = 100_000, 1_000, 10_000
#: Of the name of a run, which is that of its directory.
MAX_NAME_LENGTH = 255
#: Of all text in a file, and of the names of a value and of all that it is in.
MAX_CHARACTERS, MAX_PLACE_LENGTH = 2**24, 1000
#: How often the same tensors may occur in a file: each time, they are summed up again.
MAX_OCCURRENCES = 4

Selection = Literal["best", "last"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a model that depend on its data, not on the settings of its training.

    `image_size` is the height and width of the images (None in files of schema 4 and older).
    """

    num_classes: int
    in_channels: int
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for sizes from which a model would be built that no memory holds."""
        sizes = {
            "num_classes": (self.num_classes, MAX_CLASSES),
            "in_channels": (self.in_channels, MAX_CHANNELS),
            "image_size": (max(self.image_size or (1, 1)), MAX_IMAGE_SIZE),
        }
        for name, (size, limit) in sizes.items():
            if not 1 <= size <= limit:
                raise ValueError(f"field shape.{name} is {size}, but at most {limit:,} is read")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One set of weights, tensors by name, after `epoch` epochs, and its validation counts.

    Weights from within the next epoch have no counts. `steps` counts the optimization steps since
    the start of the run (None in files of schema 3 and older).
    """

    state: dict[str, Any]
    epoch: int
    counts: Counts | None
    steps: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as it is stored, where its counts are two keys."""
        return {"state": self.state, "epoch": self.epoch, "steps": self.steps} | {
            name: getattr(self.counts, name, None) for name in COUNTS
        }

    @staticmethod
    def parse(stored: object) -> object:
        """Return a stored snapshot with its counts as one field; anything else unchanged."""
        if not isinstance(stored, dict) or not stored.keys() >= COUNTS:
            return stored
        counts = {name: stored[name] for name in COUNTS}
        rest = {key: value for key, value in stored.items() if key not in COUNTS}
        is_empty = all(count is None for count in counts.values())
        return rest | {"counts": None if is_empty else counts}


COUNTS = Counts.__dataclass_fields__.keys()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of one file.

    `snapshots` maps student, and average where there is one, to its weights. `run_id` is drawn when
    a run begins, and all its files have it ("" in files of schema 3 and older). `data_sha256`
    identifies the training images, `selection_sha256` those that choose the best epoch ("" in
    files of schema 1), `training_images_sha256` all training images before any were held out
    (None in files of schema 2 and older). `label` is the run's name where the user chose one,
    else "". `plugins` maps what a plugin provided, such as "architectures:NAME", to its
    distribution and version (empty in files of schema 4 and older). `processes` is the largest
    number of processes that trained. `training` is the rest of the state of a run, needed only to
    resume; a `best` checkpoint has none.
    """

    selection: Selection
    config: TrainConfig
    shape: ModelShape
    run: str
    run_id: str = ""
    data_sha256: str
    selection_sha256: str = ""
    training_images_sha256: str | None = None
    label: str = ""
    plugins: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, Snapshot]
    processes: int = 1
    training: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a run whose name cannot be that of its files."""
        if len(self.run) > MAX_NAME_LENGTH or not is_file_name(self.run):
            raise ValueError(f"field run is {self.run!r:.80}, which is no name of a run")

    def is_of_same_run(self, other: "Checkpoint") -> bool:
        """Return whether both belong to the same run; early versions stored less to identify it."""
        selection_images = {self.selection_sha256, other.selection_sha256} - {""}
        return (
            self.run_id == other.run_id
            and self.data_sha256 == other.data_sha256
            and len(selection_images) <= 1
            and not self.config.differences(other.config)
        )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` by rename, without the path of the user's data."""
    header = {one.name: getattr(checkpoint, one.name) for one in fields(checkpoint)}
    content = {
        "format": MARK,
        "schema": SCHEMA,
        **header,
        "config": checkpoint.config.to_json() | {"dataset": stored_name(checkpoint.config.dataset)},
        "shape": to_json(checkpoint.shape),
        "snapshots": {name: held.to_json() for name, held in checkpoint.snapshots.items()},
    }
    buffer = io.BytesIO()
    torch.save(content | {CHECKSUM: checksum(content)}, buffer)
    write_atomically(path, buffer.getvalue())


#: The key of a file's checksum.
CHECKSUM = "sha256"
#: Its key in files of schema 2 and 3, where it covers the tensors only.
TENSORS_CHECKSUM = "tensors_sha256"


def checksum(content: Any, *, tensors_only: bool = False) -> str:
    """Return the SHA-256, in hex, of all values within containers and of their positions."""
    digest = hashlib.sha256()
    for place, value in _leaves(content, ""):
        if isinstance(value, Tensor):
            digest.update(f"{place} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(tensor_bytes(value))
        elif not tensors_only:
            digest.update(f"{place} {value!r}\n".encode())
    return digest.hexdigest()


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield every value within containers, and the size of every container, with its place.

    Raises ValueError for longer places than any that is written: each is repeated in all below it.
    """
    if len(place) > MAX_PLACE_LENGTH:
        raise ValueError("its names are too long")
    if isinstance(value, Mapping):
        yield place, len(value)
        for key, item in value.items():
            yield from _leaves(item, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        yield place, len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}/{index}")
    else:
        yield place, value


def load(path: Path) -> Checkpoint:
    """Read one of our own checkpoints.

    Raises:
        CheckpointError: when the file is missing, broken, newer, or not one of ours.

    """
    file = read_torch_file(path)
    if not is_ours(file.content):
        raise CheckpointError(
            f"{path} is not an adrbench checkpoint: to attack third-party weights, "
            f"give {argument('arch')} and {argument('dataset')}."
        )
    return parse(file, path)


def is_ours(content: object) -> bool:
    """Return whether the content of a file is marked as an adrbench checkpoint."""
    return isinstance(content, dict) and content.get("format") == MARK


def parse(file: TorchFile, path: Path) -> Checkpoint:
    """Return the checkpoint in an adrbench file, read from `path`.

    Raises:
        CheckpointError: when it is damaged, of a newer schema, contains pickled objects, or needs a
            plugin that is not installed.

    """
    content = file.content
    if file.unread:
        raise CheckpointError(
            f"{path} contains pickled objects ({describe_unread(file.unread)}), which adrbench "
            "never writes and which could run code: copy or train it again."
        )
    if file.extent.tensor_bytes > MAX_OCCURRENCES * file.size:
        raise CheckpointError(f"{path} is damaged (its tensors overlap): copy or train it again.")
    if file.extent.characters > MAX_CHARACTERS:
        raise CheckpointError(f"{path} is damaged (its text is too long): copy or train it again.")
    schema = content.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint schema {schema!r:.40}, but this version reads up to {SCHEMA}: "
            "update adrbench."
        )
    try:
        _check_checksum(content, schema)
        _check_method(content.get("config"), path)
        checkpoint = _parse_header(content)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
        raise CheckpointError(f"{path} is damaged ({reason}): copy or train it again.") from error
    return checkpoint if schema >= 3 else replace(checkpoint, label=former_label(checkpoint))


def _check_checksum(content: Mapping[str, Any], schema: int) -> None:
    """Raise ValueError unless the content of a file matches its checksum."""
    key, tensors_only = (CHECKSUM, False) if schema >= 4 else (TENSORS_CHECKSUM, True)
    summed = {name: value for name, value in content.items() if name != key}
    if schema > 1 and content.get(key) != checksum(summed, tensors_only=tensors_only):
        raise ValueError("its content does not match its checksum")


def _check_method(config: object, path: Path) -> None:
    """Raise CheckpointError if the method of a run has a component that cannot be used here."""
    method = config.get("method") if isinstance(config, Mapping) else None
    for token in foreign_tokens(method) if isinstance(method, str) else ():
        if token not in component_tokens():
            raise CheckpointError(
                f"{path} was trained with method {method!r:.60}, but no {token!r:.40} is "
                "installed: install the plugin that provides it."
            )
        try:
            find_component(token)
        except AdrbenchError as error:
            raise CheckpointError(f"{path} needs a plugin: {error}") from error


def _parse_header(content: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint that a file holds; ValueError names a field that is wrong."""
    apart = ("format", "schema", CHECKSUM, TENSORS_CHECKSUM)
    stored = {key: value for key, value in content.items() if key not in apart}
    _check_no_tensors(stored)
    snapshots = stored.get("snapshots")
    if isinstance(snapshots, dict):
        stored["snapshots"] = {name: Snapshot.parse(held) for name, held in snapshots.items()}
    if "config" in stored:
        _drop_repeated(stored)
        stored["config"] = nest_method_settings(stored["config"])
    checkpoint = from_json(Checkpoint, stored)
    if not checkpoint.snapshots or not checkpoint.snapshots.keys() <= set(WEIGHTS):
        found = list_first([repr(name)[:40] for name in checkpoint.snapshots], len(WEIGHTS))
        raise ValueError(f"field snapshots has {found or 'nothing'}, not {' or '.join(WEIGHTS)}")
    num_images = checkpoint.config.val_size if checkpoint.config.select == "val" else None
    for weights, held in checkpoint.snapshots.items():
        if num_images and held.counts and held.counts.clean_correct > num_images:
            raise ValueError(
                f"the {weights} weights classify {held.counts.clean_correct} of {num_images} "
                "validation images correctly"
            )
    return checkpoint


def _check_no_tensors(stored: Mapping[str, Any]) -> None:
    """Raise ValueError for a tensor that is not among the weights or the state of training."""
    header = {
        key: value
        for key, value in stored.items()
        if key != "training" or isinstance(value, Tensor)
    }
    for place, value in _leaves(header, ""):
        if isinstance(value, Tensor) and "/state/" not in place:
            raise ValueError(f"field {place[1:].replace('/', '.')} is a tensor")


def _drop_repeated(stored: dict[str, Any]) -> None:
    """Drop fields that files of schema 3 and older store twice; ValueError if they disagree."""
    config, shape = stored["config"], stored.get("shape")
    if isinstance(config, Mapping) and isinstance(shape, Mapping):
        for name in ("arch", "activation"):
            if name in shape and shape[name] != config.get(name):
                raise ValueError(
                    f"field shape.{name} is {shape[name]!r:.40}, but config.{name} "
                    f"{config.get(name)!r:.40}"
                )
        stored["shape"] = {
            name: value for name, value in shape.items() if name not in ("arch", "activation")
        }


def former_label(checkpoint: Checkpoint) -> str:
    """Return the label of a run whose checkpoint was written before labels were stored."""
    config = checkpoint.config
    try:
        dataset = dataset_name(config.dataset)
    except UsageError:  # a path that is not on this machine
        dataset = config.dataset
    return label_from_run_name(
        checkpoint.run,
        dataset=dataset,
        arch=config.arch,
        activation=config.activation,
        method=config.method,
        seed=config.seed,
    )
