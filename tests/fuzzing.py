"""Settings and functions for tests with altered files."""

import random
from pathlib import Path

import torch
from hypothesis import settings

from adrbench.data import load_dataset
from adrbench.errors import DataError, UsageError
from messages import assert_one_line

MEBIBYTE = 2**20

fuzz = settings(derandomize=True, deadline=None, max_examples=100, database=None)


def assert_loaded_or_rejected(path: Path) -> str:
    """Load a data set; return the error message, or "" if there is none."""
    try:
        dataset = load_dataset(str(path), data_dir=Path("nowhere"))
    except (DataError, UsageError) as error:
        assert_one_line(str(error))
        return str(error)
    for images in (dataset.train, dataset.val, dataset.test):
        assert images.pixels.dtype == torch.uint8
        assert len(images) == 0 or 0 <= int(images.labels.min()) <= int(images.labels.max())
        assert len(images) == 0 or int(images.labels.max()) < dataset.num_classes
    return ""


def damage(content: bytes, seed: int) -> bytes:
    """Return `content` with a few bytes changed, removed or inserted, often near the end."""
    draws = random.Random(seed)
    altered = bytearray(content)
    for _ in range(draws.randint(1, 4)):
        start = max(0, len(altered) - 300) if draws.random() < 0.5 else 0
        place = draws.randrange(start, len(altered))
        match draws.choice(["flip", "byte", "byte", "cut", "insert", "end", "copy"]):
            case "flip":
                altered[place] ^= 1 << draws.randrange(8)
            case "byte":
                altered[place] = draws.choice([0, 1, 8, 0x7F, 0xFF, draws.randrange(256)])
            case "cut":
                del altered[max(1, place) : place + draws.randrange(1, 40)]
            case "insert":
                altered[place:place] = draws.randbytes(draws.randrange(1, 40))
            case "copy":
                altered[place:place] = altered[: draws.randrange(1, 400)]
            case "end" if draws.random() < 0.3:
                del altered[max(1, place) :]
    return bytes(altered)
