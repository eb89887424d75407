"""Random seeds as a pure function of where they are used.

Every draw has its own seed, derived from the user's seed and a path of names and numbers. So no
generator state has to be saved: a run resumed at any step draws what it would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *path: int | str) -> int:
    """Return the seed, in [0, 2**63), that is derived from `seed` and `path`.

    It is the same on every platform and version. Different paths give unrelated seeds, also a
    number and its spelling, or ("ab", "c") and ("a", "bc"). Raises TypeError for an entry that is
    neither a string nor an integer.
    """
    parts = tuple(part if isinstance(part, str) else index(part) for part in (seed, *path))
    digest = hashlib.blake2b(ascii(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: "torch.device | str", seed: int, *path: int | str) -> "torch.Generator":
    """Return a new generator on `device`, seeded with `derive_seed(seed, *path)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *path))


@contextmanager
def global_generators(device: "torch.device", seed: int, *path: int | str) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device` with `derive_seed(seed, *path)`.

    Networks draw from them, for dropout and stochastic depth. They are restored afterwards.
    """
    import torch

    derived = derive_seed(seed, *path)
    cuda = []
    if device.type == "cuda":
        cuda = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would also seed devices that are not restored.
        torch.default_generator.manual_seed(derived)
        for number in cuda:
            torch.cuda.default_generators[number].manual_seed(derived)
        yield
