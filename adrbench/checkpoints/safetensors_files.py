"""Reading the tensors of untrusted `.safetensors` files.

Such a file consists of the length of its header in 8 bytes, the header in JSON, and the tensor
data. It contains no code.
"""

import math
import re
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from adrbench.checkpoints.refusals import DAMAGED
from adrbench.checkpoints.torch_files import is_torch_content
from adrbench.checkpoints.weights_files import open_weights
from adrbench.errors import CheckpointError, is_out_of_memory
from adrbench.runtime.files import open_limited

SUFFIX = ".safetensors"
LENGTH_BYTES = 8
#: The longest header that the format allows.
MAX_HEADER_BYTES = 100_000_000
#: The longest that is read: 100,000 tensors take about this much, and an object each.
MAX_READ_HEADER_BYTES = 2**24
#: The end of the name of one of several files, such as `-00001-of-00003`.
SHARD = re.compile(r"-\d+-of-0*(\d+)")
MERGE = "load the model with the library that saved it, and save its state dict in one file."


def is_safetensors_file(path: Path) -> bool:
    """Return whether `path` is a safetensors file by its content, or by its name if damaged."""
    try:
        with open_limited(path, math.inf) as file:
            start = file.read(LENGTH_BYTES + 1)
    except OSError:  # which reading the whole file explains
        return False
    return _has_header(start) or (SUFFIX in path.suffixes and not is_torch_content(start))


def read_safetensors_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors in `path`, sorted by name, on the CPU and of the types they have there.

    Raises:
        CheckpointError: when the file is empty, truncated, damaged, not a safetensors file, one of
            several shards, or contains a type of number that PyTorch does not support.

    """
    _check_is_whole_model(path)
    with open_weights(path) as (file, _):
        content = file.read()
    if not _has_header(content):
        raise CheckpointError(
            f"{path} is not a safetensors file: give one, or a file that torch.save wrote."
        )
    end_of_header = LENGTH_BYTES + _header_length(content)
    if end_of_header > len(content):
        raise CheckpointError(
            f"{path} is truncated after {len(content):,} bytes, within its header of "
            f"{end_of_header:,}: copy or save it again."
        )
    if end_of_header > MAX_READ_HEADER_BYTES:
        raise CheckpointError(
            f"{path} has a header of {end_of_header:,} bytes, and at most "
            f"{MAX_READ_HEADER_BYTES:,} are read: save a state dict."
        )
    try:
        # The library returns them in an order that changes from one call to the next.
        return dict(sorted(safetensors.torch.load(content).items()))
    except (SafetensorError, RuntimeError, TypeError, OverflowError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} {DAMAGED}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path} contains tensors of type {error.args[0]}, which PyTorch does not support: "
            "save the weights as float32, bfloat16 or float16."
        ) from error


def _has_header(content: bytes) -> bool:
    """Return whether a header of a possible length begins after the 8 bytes of its length."""
    is_object = content[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"
    return is_object and _header_length(content) <= MAX_HEADER_BYTES


def _header_length(content: bytes) -> int:
    return int.from_bytes(content[:LENGTH_BYTES], "little")


def _check_is_whole_model(path: Path) -> None:
    """Raise CheckpointError for one shard of a model, or for the index of its shards."""
    shard = SHARD.search(path.name)
    if shard and int(shard[1]) > 1:
        raise CheckpointError(f"{path} is one of {int(shard[1])} shards of a model: {MERGE}")
    if path.suffixes[-2:] == [".index", ".json"]:
        raise CheckpointError(f"{path} is the index of a sharded model, not its weights: {MERGE}")
