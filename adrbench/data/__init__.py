"""Data sets: the table of known ones, the user's own, their parts, and batches on a device.

Images stay uint8 and live on the device as a whole; a batch becomes float32 in [0, 1] last.
"""

from adrbench.data.augmentation import random_crop_flip
from adrbench.data.batches import check_shares, epoch_batches, steps_per_epoch
from adrbench.data.builtin import DATASETS
from adrbench.data.images import Dataset, Images, Source, to_float
from adrbench.data.loading import dataset_name, load_dataset, load_examples, load_split

__all__ = [
    "DATASETS",
    "Dataset",
    "Images",
    "Source",
    "check_shares",
    "dataset_name",
    "epoch_batches",
    "load_dataset",
    "load_examples",
    "load_split",
    "random_crop_flip",
    "steps_per_epoch",
    "to_float",
]
