"""Tensors that are not plain weights, in the places where weights are read."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint, ModelShape, Snapshot
from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.models.architectures import build_model
from adrbench.results.history import Counts
from hostile.limited import Case

NAME = "odd.pt"
CONV, COUNTER = "stem.0.weight", "num_batches_tracked"


class Subclass(Tensor):
    """A tensor of a class that does not exist where the file is read."""


def with_attributes(values: Tensor) -> Tensor:
    """Return a parameter with stored attributes that are named like methods."""
    parameter = nn.Parameter(values)
    for name in ("shape", "to", "numel", "__class__", "item"):
        with_name = f"{name}_" if name.startswith("__") else name
        try:
            setattr(parameter, with_name, "a text")
        except AttributeError:
            continue
    return parameter


def quantized(values: Tensor) -> Tensor:
    """Return a tensor of 8-bit numbers with one scale."""
    return torch.quantize_per_tensor(values, 0.1, 0, torch.qint8)


def nested(values: Tensor) -> Tensor:
    """Return a nested tensor."""
    return torch.nested.nested_tensor([values.flatten(), values.flatten()[:1]])


def blocks(values: Tensor) -> Tensor:
    """Return a tensor of sparse blocks."""
    return values.reshape(len(values), -1).to_sparse_bsr((1, 1))


#: How a weight is made odd, from float32 numbers.
KINDS: dict[str, Callable[[Tensor], Any]] = {
    "COO": lambda values: values.to_sparse(),
    "CSR": lambda values: values.reshape(len(values), -1).to_sparse_csr(),
    "CSC": lambda values: values.reshape(len(values), -1).to_sparse_csc(),
    "BSR": blocks,
    "meta": lambda values: values.to("meta"),
    "nested": nested,
    "quantized": quantized,
    "complex64": lambda values: values + 1j,
    "complex128": lambda values: values.double() + 1j,
    "conjugated": lambda values: (values + 1j).conj(),
    "negated": lambda values: (values + 1j).conj().imag,
    **{
        str(dtype).removeprefix("torch."): partial(Tensor.to, dtype=dtype)
        for dtype in (
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz),
            *(torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.int8),
            *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int64),
        )
    },
    "bits8": lambda values: torch.zeros(values.shape, dtype=torch.uint8).view(torch.bits8),
    "float4": lambda values: torch.zeros(values.shape, dtype=torch.uint8).view(
        torch.float4_e2m1fn_x2
    ),
    "subclass": lambda values: values.as_subclass(Subclass),
    "parameter": with_attributes,
    "expanded": lambda values: values.flatten()[:1].expand(values.shape),
    "transposed": lambda values: values.t() if values.ndim == 2 else values,
    "not finite": lambda values: values * torch.inf,
    "empty": lambda values: values.flatten()[:0],
    "of no dimensions": lambda values: values.flatten()[0],
    "of another shape": lambda values: values.flatten(),
    "a number": lambda values: 3,
    "a text": lambda values: "\x1b[31m",
    "nothing": lambda values: None,
    "a list": lambda values: values.tolist(),
    "an array": lambda values: values.numpy(),
    "a table": lambda values: {"weight": values},
    "a module": lambda values: nn.Identity(),
}


@cache
def weights() -> dict[str, Tensor]:
    """Return the weights of a small network."""
    torch.manual_seed(0)
    model = build_model("small-cnn", num_classes=10, in_channels=1)
    return {name: value.detach() for name, value in model.state_dict().items()}


def find(words: str) -> str:
    """Return the name of the first weight that ends with `words`."""
    return next(name for name in weights() if name.endswith(words))


def places() -> dict[str, tuple[str, Tensor]]:
    """Return the entries that are made odd, and their usual values."""
    constants = {"mean": torch.full((1,), 0.5), "std": torch.full((1,), 0.5)}
    matrix = [name for name, value in weights().items() if value.ndim == 2][-1]
    counters = [name for name in weights() if name.endswith(COUNTER)]
    named = {
        "convolution": next(name for name, value in weights().items() if value.ndim == 4),
        "classifier": matrix,
        **({"counter": counters[0]} if counters else {}),
    }
    usual = {place: (name, weights()[name]) for place, name in named.items()}
    usual |= {name: (name, value) for name, value in constants.items()}
    return usual | {
        "unexpected": ("unexpected", torch.ones(2, 2)),
        "n_averaged": ("n_averaged", torch.tensor(3)),
    }


def checkpoint(state: dict[str, Any]) -> Checkpoint:
    """Return a checkpoint of ours with these weights."""
    preset = find_preset("digits", "small-cnn", parse_method("at"), num_train=1437)
    config = TrainConfig.of(
        dataset="digits", arch="small-cnn", method="at", val_size=143, **preset.values
    )
    counts = Counts(clean_correct=90, robust_correct=50)
    return Checkpoint(
        selection="last",
        config=config,
        shape=ModelShape(num_classes=10, in_channels=1),
        run="a-run",
        run_id="0123456789abcdef",
        data_sha256="d" * 64,
        snapshots={"student": Snapshot(state=state, epoch=3, counts=counts)},
    )


def save_ours(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of ours whose checksum fits, as a deliberate change would."""
    checkpoints.save(path, checkpoint({}))
    content = torch.load(path, weights_only=True)
    del content[checkpoints.CHECKSUM]
    content["snapshots"]["student"]["state"] = state
    save_with_checksum(path, content)


def save_with_checksum(path: Path, content: dict[str, Any]) -> None:
    """Write the content of a checkpoint of ours with the checksum that its reader expects."""
    torch.save(content, path)
    try:
        read = read_torch_file(path).content
        torch.save(content | {checkpoints.CHECKSUM: checkpoints.checksum(read)}, path)
    except (ValueError, RecursionError):  # it is refused before its checksum is compared
        pass


#: How weights are wrapped in a file.
WRAPPERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "bare": lambda path, state: torch.save(state, path),
    "state_dict": lambda path, state: torch.save({"state_dict": state, "epoch": 3}, path),
    "module.": lambda path, state: torch.save(
        {f"module.{name}": value for name, value in state.items()}, path
    ),
    "legacy": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    "ours": save_ours,
}


def make(kind: str, place: str, wrapper: str, folder: Path) -> None:
    """Write a file whose weights are usual but for one."""
    name, usual = places()[place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            odd = KINDS[kind](usual if usual.ndim or kind == "of no dimensions" else usual[None])
        except (RuntimeError, NotImplementedError, IndexError):
            odd = KINDS[kind](torch.ones(2, 2))
        try:
            WRAPPERS[wrapper](folder / NAME, {**weights(), name: odd})
        except (RuntimeError, NotImplementedError) as error:  # torch cannot save it so
            (folder / NAME).write_text(str(error))


def read(folder: Path) -> object:
    """Load the model as `adrbench attack` does."""
    options = TargetOptions(arch="small-cnn", dataset="digits", eps=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return resolve_targets(str(folder / NAME), options)


def cases() -> Iterator[Case]:
    """Yield every kind in every place of every file."""
    for kind, place, wrapper in itertools.product(KINDS, places(), WRAPPERS):
        says = f"{place} is {kind} ({wrapper})"
        yield Case(says, partial(make, kind, place, wrapper), read)
