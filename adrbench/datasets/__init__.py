"""Data sets: the table of known ones, the user's own, their parts, and batches on a device.

Images stay uint8 and live on the device as a whole; a batch becomes float32 in [0, 1] last.
"""

from adrbench.datasets.batches import check_shares, epoch_batches, random_crop_flip, steps_per_epoch
from adrbench.datasets.images import Dataset, Images, Source, to_float
from adrbench.datasets.loading import dataset_name, load_dataset, load_examples, load_split
from adrbench.datasets.standard import DATASETS

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
