"""The batches of an epoch, built on the device of the images.

The random draws of an epoch depend only on (seed, epoch) and are the same on every device, so a
run resumed at any step uses the same batches as an uninterrupted run.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from adrbench.data.augmentation import check_padding, crop_and_flip, draw_crops
from adrbench.data.images import Images, to_float
from adrbench.errors import DataError, UsageError, argument
from adrbench.runtime.seeds import generator as seeded_generator


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch; an incomplete last batch is dropped.

    Raises UsageError for a batch size below 1, DataError for fewer images than one batch.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}, but it must be at least 1.")
    if num_images < batch_size:
        raise DataError(
            f"the training split has {num_images} images, too few for one batch of {batch_size}: "
            f"give {argument('batch_size', num_images)} or less."
        )
    return num_images // batch_size


def check_shares(batch_size: int, num_processes: int) -> None:
    """Raise UsageError unless the batch size is divisible by the number of processes."""
    if batch_size % num_processes:
        below = batch_size - batch_size % num_processes
        nearest = f"{below} or {below + num_processes}" if below else f"{num_processes}"
        raise UsageError(
            f"a batch of {batch_size} images cannot be divided evenly among {num_processes} "
            f"processes: give {argument('batch_size', nearest)}."
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

    Every image occurs at most once; an incomplete last batch is dropped. Starting at `first_step`
    gives the same batches as skipping that many. A `share` (k, n) selects part k, from 0, of n
    equal parts of every batch. Raises, when called, UsageError for a negative padding or step, or
    a batch size that is below 1 or not divisible by n, and DataError for fewer images than one
    batch.
    """
    check_padding(padding)
    if first_step < 0:
        raise UsageError(f"the first step is {first_step}, but it must be at least 0.")
    steps = range(first_step, steps_per_epoch(len(images), batch_size))
    part, num_parts = share
    check_shares(batch_size, num_parts)
    share_size = batch_size // num_parts
    generator = seeded_generator("cpu", seed, "epoch", epoch)
    order = torch.randperm(len(images), generator=generator)
    crops = draw_crops(len(images), padding=padding, flip=flip, generator=generator)
    device = images.pixels.device
    order, crops = order.to(device), crops.batch(0, len(images), device)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        start = step * batch_size + part * share_size
        stop = start + share_size
        chosen = images.take(order[start:stop])
        crop = crops.batch(start, stop, device)
        return to_float(crop_and_flip(chosen.pixels, crop, padding=padding)), chosen.labels

    return map(batch, steps)
