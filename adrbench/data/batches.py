"""The batches of an epoch, made on the device the images live on.

What an epoch draws depends on (seed, epoch) alone and is the same on every device, so a run can
be resumed at any step and sees the batches it would have seen.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from adrbench.data.augmentation import check_padding, crop_and_flip, draw_crops
from adrbench.data.images import Images, to_float
from adrbench.errors import DataError, UsageError
from adrbench.runtime.seeds import generator as seeded_generator


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return how many full batches there are in an epoch: the incomplete last one is dropped.

    Raises UsageError for a batch size below 1, DataError where not even one batch can be filled.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}, but it must be at least 1.")
    if num_images < batch_size:
        raise DataError(
            f"the training part has {num_images} images, too few for one batch of {batch_size}: "
            f"give --batch-size {num_images} or less."
        )
    return num_images // batch_size


def check_shares(batch_size: int, num_processes: int) -> None:
    """Raise UsageError unless every process gets as many images of a batch as the others."""
    if batch_size % num_processes:
        below = batch_size - batch_size % num_processes
        nearest = f"{below} or {below + num_processes}" if below else f"{num_processes}"
        raise UsageError(
            f"a batch of {batch_size} images cannot be shared evenly by {num_processes} processes: "
            f"give --batch-size {nearest}."
        )


def epoch_batches(
    images: Images,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    padding: int,
    flip: bool,
    first_step: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over one epoch: x (batch_size, C, H, W) float32 in [0, 1], y (batch_size,) int64.

    Every image comes at most once; the last incomplete batch is dropped. Starting at `first_step`
    gives the same batches as skipping that many. A `share` (k, n) gives part k, from 0, of n equal
    parts of every batch. Raises, at the call, UsageError for a negative padding or step, a batch
    size below 1 or one that cannot be shared, and DataError for fewer images than one batch.
    """
    check_padding(padding)
    if first_step < 0:
        raise UsageError(f"the first step is {first_step}, but it must be at least 0.")
    steps = range(first_step, steps_per_epoch(len(images), batch_size))
    part, num_parts = share
    check_shares(batch_size, num_parts)
    share_size = batch_size // num_parts
    draws = seeded_generator("cpu", seed, "epoch", epoch)
    order = torch.randperm(len(images), generator=draws)
    crops = draw_crops(len(images), padding=padding, flip=flip, generator=draws)
    device = images.pixels.device
    order, crops = order.to(device), crops.batch(0, len(images), device)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        start = step * batch_size + part * share_size
        stop = start + share_size
        chosen = images.take(order[start:stop])
        crop = crops.batch(start, stop, device)
        return to_float(crop_and_flip(chosen.pixels, crop, padding=padding)), chosen.labels

    return map(batch, steps)
