"""Checkpoints: plain dictionaries of tensors, numbers and strings that rebuild a model.

A file is written under another name and renamed, and read without running anything it holds.
It carries a schema number and everything needed to rebuild the model and find its data set.
"""

import hashlib
import io
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adrbench.config import TrainConfig
from adrbench.errors import CheckpointError, UsageError
from adrbench.models import build_model
from adrbench.records import write_atomically
from adrbench.schema import from_json, to_json
from adrbench.tokens import WEIGHTS, Weights

SCHEMA = 1
MARK = "adrbench checkpoint"
BEST, LAST = "best.pt", "last.pt"

Selection = Literal["best", "last"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the architecture's builder needs besides the weights."""

    arch: str
    activation: str
    num_classes: int
    in_channels: int

    def build(self) -> nn.Module:
        """Return a model of this shape, its weights and normalisation still to be loaded."""
        return build_model(
            self.arch,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            activation=self.activation,
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One set of weights, tensors by name, after `epoch` epochs, with its counts there."""

    state: dict[str, Any]
    epoch: int
    clean_correct: int
    robust_correct: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of one file.

    `snapshots` maps student, and average where there is one, to its weights. `data_sha256`
    identifies the images trained on. `training` is what only a resumed run needs: the optimizer
    and the history; a `best` checkpoint has none.
    """

    selection: Selection
    config: TrainConfig
    shape: ModelShape
    run: str
    data_sha256: str
    snapshots: dict[str, Snapshot]
    training: dict[str, Any] | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` by rename."""
    content = {
        "format": MARK,
        "schema": SCHEMA,
        "selection": checkpoint.selection,
        "config": checkpoint.config.to_json(),
        "shape": to_json(checkpoint.shape),
        "run": checkpoint.run,
        "data_sha256": checkpoint.data_sha256,
        "snapshots": {name: vars(snapshot) for name, snapshot in checkpoint.snapshots.items()},
        "training": checkpoint.training,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> Checkpoint:
    """Read one of our own checkpoints.

    Raises:
        CheckpointError: when the file is missing, broken, newer, or not one of ours.

    """
    content = read_file(path)
    if not is_ours(content):
        raise CheckpointError(
            f"{path} is not an adrbench checkpoint: to attack weights from elsewhere, "
            "give --arch and --dataset."
        )
    return parse(content, path)


def is_ours(content: object) -> bool:
    """Tell whether a loaded file says that it is an adrbench checkpoint."""
    return isinstance(content, dict) and content.get("format") == MARK


def parse(content: Any, path: Path) -> Checkpoint:
    """Return the checkpoint in what `read_file` read from `path`."""
    schema = content.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise CheckpointError(
            f"{path} has checkpoint schema {schema}, this version reads up to {SCHEMA}: "
            "update adrbench."
        )
    fields = {key: value for key, value in content.items() if key not in ("format", "schema")}
    try:
        return from_json(Checkpoint, fields)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy or train it again.") from error


def read_file(path: Path) -> Any:
    """Read what `torch.save` wrote, tensors and plain values only, onto the CPU.

    Raises:
        CheckpointError: when the file is missing, a directory, empty, truncated, a web page, or
            holds anything that would have to be executed.

    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory without {BEST} or {LAST}: name a file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; check the path.") from error
    if not content:
        raise CheckpointError(f"{path} is empty: copy or train it again.")
    if content.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights: download it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if is_ours(loaded):
            _check_sums(content)
    except Exception as error:  # torch.load has no common base for what a broken file raises
        raise CheckpointError(f"{path} {_reason(content, error)}") from error
    return loaded


def _check_sums(content: bytes) -> None:
    """Raise BadZipFile where a bit is not as it was written, which `torch.load` does not see."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")


def _reason(content: bytes, error: Exception) -> str:
    if "Unsupported global" in str(error) or "WeightsUnpickler error: Unsupported" in str(error):
        return "holds objects, not only tensors: reading them could run code, save a state dict."
    if content.startswith(b"PK"):
        return "is truncated or damaged: copy or train it again."
    return "is not a file that torch.save wrote: give a checkpoint or a state dict."


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    """Return a trained model in eval mode on the CPU, taking images (N, C, H, W) in [0, 1].

    `path` is a checkpoint, or a run directory, of which the best checkpoint is taken. `weights`
    is "student" or "average"; None is what the method deploys.

    Raises:
        CheckpointError: when the file cannot be read or does not fit its model.

    """
    path = Path(path)
    if path.is_dir():
        path = path / BEST
    checkpoint = load(path)
    return restore(checkpoint, weights or checkpoint.config.parsed_method().deployed, path)
