"""How the validation images of runs were chosen, as far as training records show it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adrbench.config.settings import TrainConfig
from adrbench.report.datasets import TEST_SIZES
from adrbench.results.records import TrainRecord

#: With fewer images, the choice of the best epoch is largely chance: on 1,000 images, the default,
#: an accuracy of 50 % has a standard error of 1.6 points, and the methods that are compared here
#: differ by one or two.
FEW_IMAGES = 1_000


@dataclass(frozen=True, kw_only=True)
class ValidationSplit:
    """The number of validation images, and whether each training seed holds out its own.

    `follows_seed` is None where that depends on whether the data set has a validation split of its
    own, which records do not state.
    """

    num_images: int
    follows_seed: bool | None


#: By the training images, or by the data set where these are not recorded, and by the fingerprint
#: of the settings without the seed.
ValidationSplits = Mapping[tuple[str, str], ValidationSplit]


def find_split(config: TrainConfig, record: TrainRecord) -> ValidationSplit:
    """Return the split of a run; it does not follow the seed if `split_seed` is set."""
    is_fixed = record.num_val == 0 or config.values().get("split_seed") is not None
    follows_seed = False if is_fixed else True if config.dataset in TEST_SIZES else None
    return ValidationSplit(num_images=record.num_val, follows_seed=follows_seed)


def standard_error(num_images: int) -> float:
    """Return the standard error, in points, of an accuracy of 50 % measured on `num_images`."""
    return 50 / math.sqrt(num_images)
