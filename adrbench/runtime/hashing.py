"""SHA-256 fingerprints of plain values, and the bytes of a tensor to hash."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256, in hexadecimal, of a JSON value; the order of keys has no effect."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """Return the elements of a tensor of any type and layout as bytes in row-major order."""
    import torch

    flat = tensor.detach().cpu().reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy().data
