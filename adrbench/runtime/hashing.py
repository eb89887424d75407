"""SHA-256 fingerprints, in hexadecimal, of files, of plain values and of a model's weights."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrbench.runtime.files import open_limited

if TYPE_CHECKING:
    from torch import Tensor, nn


def hash_file(path: Path, limit: float = math.inf) -> str:
    """Return the SHA-256 of the content of a regular file; OSError above `limit` bytes."""
    with open_limited(path, limit) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """Return the SHA-256 of JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_weights(model: "nn.Module") -> str:
    """Return the SHA-256 of a model's state dict, independent of the file it was loaded from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        for content in _contents(value):
            digest.update(content)
    return digest.hexdigest()


def _contents(value: object) -> Iterator[bytes | memoryview]:
    """Yield the content of an entry of a state dict, to which modules may add any object.

    The weights of quantized layers are in tuples, for example.
    """
    if _is_tensor(value):
        yield tensor_bytes(value)  # type: ignore[arg-type]
    elif isinstance(value, tuple | list) and any(map(_is_tensor, value)):
        for item in value:
            yield from _contents(item)
    else:
        yield repr(value).encode()


def _is_tensor(value: object) -> bool:
    return hasattr(value, "layout")


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """Return the elements of a tensor of any type and layout as bytes in row-major order.

    Those of a quantized tensor are the float32 numbers that it represents.
    """
    import torch

    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    flat = tensor.detach().cpu().reshape(-1)
    if flat.stride() != (1,):  # also one element, which torch calls contiguous at any stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data
