"""The checkpoint format: a plain dictionary of tensors, numbers and strings.

A file is written by rename and read without executing anything in it. It has a schema number and
all that is needed to rebuild the model and find its data set.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adrbench.checkpoints.torch_files import TorchFile, describe_unread, read_torch_file
from adrbench.config.method import WEIGHTS, Weights
from adrbench.config.settings import TrainConfig, nest_method_settings
from adrbench.data import dataset_name
from adrbench.errors import CheckpointError, UsageError
from adrbench.models.architectures import build_model
from adrbench.results.history import Counts
from adrbench.results.migrations import label_from_run_name
from adrbench.runtime.files import write_atomically
from adrbench.runtime.typed_json import from_json, to_json

SCHEMA = 3
MARK = "adrbench checkpoint"
BEST, LAST = "best.pt", "last.pt"

Selection = Literal["best", "last"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The arguments of the architecture's builder."""

    arch: str
    activation: str
    num_classes: int
    in_channels: int

    def build(self) -> nn.Module:
        """Return a model of this shape; its weights and normalization have yet to be loaded."""
        return build_model(
            self.arch,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            activation=self.activation,
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One set of weights, tensors by name, after `epoch` epochs, and its validation counts.

    Weights from within the next epoch have no counts.
    """

    state: dict[str, Any]
    epoch: int
    counts: Counts | None

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as it is stored, where its counts are two keys."""
        return {"state": self.state, "epoch": self.epoch} | {
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

    `snapshots` maps student, and average where there is one, to its weights. `data_sha256`
    identifies the training images, `selection_sha256` those that choose the best epoch ("" in
    files of schema 1), `training_images_sha256` all training images before any were held out
    (None in files of schema 2 and older). `label` is the run's name where the user chose one,
    else "". `processes` is the largest number of processes that trained. `training` is the rest
    of the state of a run, which only resuming needs; a `best` checkpoint has none.
    """

    selection: Selection
    config: TrainConfig
    shape: ModelShape
    run: str
    data_sha256: str
    selection_sha256: str = ""
    training_images_sha256: str | None = None
    label: str = ""
    snapshots: dict[str, Snapshot]
    processes: int = 1
    training: dict[str, Any] | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` by rename."""
    header = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    content = {
        "format": MARK,
        "schema": SCHEMA,
        **header,
        "config": checkpoint.config.to_json(),
        "shape": to_json(checkpoint.shape),
        "snapshots": {name: held.to_json() for name, held in checkpoint.snapshots.items()},
    }
    buffer = io.BytesIO()
    torch.save(content | {"tensors_sha256": sum_tensors(content)}, buffer)
    write_atomically(path, buffer.getvalue())


def sum_tensors(content: Any) -> str:
    """Return the SHA-256, in hex, of every tensor within containers and of its position there."""
    digest = hashlib.sha256()
    for place, tensor in _tensors(content, ""):
        digest.update(f"{place} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{place}/{index}")


def load(path: Path) -> Checkpoint:
    """Read one of our own checkpoints.

    Raises:
        CheckpointError: when the file is missing, broken, newer, or not one of ours.

    """
    file = read_torch_file(path)
    if not is_ours(file.content):
        raise CheckpointError(
            f"{path} is not an adrbench checkpoint: to attack weights from elsewhere, "
            "give --arch and --dataset."
        )
    return parse(file, path)


def is_ours(content: object) -> bool:
    """Return whether the content of a file is marked as an adrbench checkpoint."""
    return isinstance(content, dict) and content.get("format") == MARK


def parse(file: TorchFile, path: Path) -> Checkpoint:
    """Return the checkpoint in a file of ours, read from `path`.

    Raises:
        CheckpointError: when it is damaged, of a newer schema, or holds objects.

    """
    content = file.content
    if file.unread:
        raise CheckpointError(
            f"{path} holds objects ({describe_unread(file.unread)}), which no checkpoint of ours "
            "does and which could run code: copy or train it again."
        )
    schema = content.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint schema {schema}, this version reads up to {SCHEMA}: "
            "update adrbench."
        )
    apart = ("format", "schema", "tensors_sha256")
    stored = {key: value for key, value in content.items() if key not in apart}
    try:
        if schema > 1 and content.get("tensors_sha256") != sum_tensors(stored):
            raise ValueError("its tensors are not those that were written")
        if "config" in stored:
            stored["config"] = nest_method_settings(stored["config"])
        snapshots = stored.get("snapshots")
        if isinstance(snapshots, dict):
            stored["snapshots"] = {name: Snapshot.parse(held) for name, held in snapshots.items()}
        checkpoint = from_json(Checkpoint, stored)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy or train it again.") from error
    return checkpoint if schema >= SCHEMA else replace(checkpoint, label=former_label(checkpoint))


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


def restore(checkpoint: Checkpoint, weights: str, path: Path | str) -> nn.Module:
    """Build the model of `checkpoint` with its `weights`, in eval mode on the CPU.

    Raises:
        UsageError: for weights other than student or average.
        CheckpointError: when those weights are not in the file, or do not fit the model.

    """
    if weights not in WEIGHTS:
        raise UsageError(f"weights are {weights!r}: choose {' or '.join(WEIGHTS)}.")
    if weights not in checkpoint.snapshots:
        held = " and ".join(checkpoint.snapshots)
        raise CheckpointError(
            f"{path} has no {weights} weights but {held} of method {checkpoint.config.method}: "
            "choose other weights."
        )
    try:
        model = checkpoint.shape.build()
        model.load_state_dict(checkpoint.snapshots[weights].state, strict=True)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise CheckpointError(
            f"the weights in {path} do not fit the model it names, {checkpoint.shape.arch} "
            f"({reason}): copy or train it again."
        ) from error
    return model.eval()


def load_model(path: str | Path, weights: Weights | None = None) -> nn.Module:
    """Return a trained model in eval mode on the CPU, for images (N, C, H, W) in [0, 1].

    `path` is a checkpoint, or a run directory, of which the best checkpoint is loaded. `weights`
    is "student" or "average", or None for the weights that the method deploys.

    Raises:
        CheckpointError: when the file cannot be read or does not fit its model.

    """
    path = Path(path)
    if path.is_dir():
        path = path / BEST
    checkpoint = load(path)
    return restore(checkpoint, weights or checkpoint.config.parsed_method().deployed, path)
