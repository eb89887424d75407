"""Built-in and user data sets, their splits, and batches on a device.

A whole split is stored on the device as uint8; only the augmented batch is converted to float32 in
[0, 1].
"""

from adrbench.data.augmentation import random_crop_flip
from adrbench.data.batches import check_shares, epoch_batches, steps_per_epoch
from adrbench.data.builtin import DATASETS
from adrbench.data.find_source import dataset_name
from adrbench.data.images import Dataset, Images, Source, to_float
from adrbench.data.loading import load_dataset, load_examples, load_split

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
