"""The stratified hold-out split of training images for validation."""

import numpy as np
import torch
from torch import Tensor

from adrbench.data.images import Images
from adrbench.errors import UsageError
from adrbench.runtime.seeds import derive_seed

MAX_VAL_SIZE = 1000


def hold_out(train: Images, val_size: int | None, seed: int) -> tuple[Images, Images]:
    """Split training images into a training split and `val_size` validation images, both in order.

    They are those that `choose_held_out` chooses.
    """
    kept, validation = choose_held_out(train, val_size, seed)
    return train.take(kept), train.take(validation)


def choose_held_out(train: Images, val_size: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return the positions of the images to train on and of `val_size` others, both in order.

    The split is stratified: every class contributes in proportion to its size, to within one
    image. None means 1,000 or, on small sets, 10 %. Raises UsageError unless
    0 <= val_size < len(train).
    """
    size = min(MAX_VAL_SIZE, len(train) // 10) if val_size is None else val_size
    if not 0 <= size < len(train):
        raise UsageError(
            f"the validation size is {size}, but it must be from 0 to {len(train) - 1}: it is "
            f"taken from {len(train)} training images."
        )
    labels = train.labels.cpu().numpy()
    # Only the raw stream of a bit generator is guaranteed to be the same in every numpy version.
    draws = np.random.PCG64(derive_seed(seed, "validation")).random_raw(len(train))
    by_class = np.lexsort((draws, labels))
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    quotas, remainders = np.divmod(counts * size, len(train))
    largest = np.lexsort((draws[by_class][first], -remainders))
    quotas[largest[: size - quotas.sum()]] += 1
    rank = np.arange(len(train)) - np.repeat(first, counts)
    held_out = np.zeros(len(train), bool)
    held_out[by_class] = rank < np.repeat(quotas, counts)
    kept, validation = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held_out, held_out))
    return kept, validation
