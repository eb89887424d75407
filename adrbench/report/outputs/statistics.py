"""The statistics of the outputs of one model under one attack, which tables and figures share."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adrbench.report.grouping import Attack, SeedGroup
from adrbench.report.outputs.predictions import Floats, Integers
from adrbench.report.outputs.seed_values import SeedValues
from adrbench.report.statistics import Figure, accuracy
from adrbench.results.outputs import Outputs

#: The bins of a histogram of confidences.
NUM_HISTOGRAM_BINS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Bins of the confidence, (NUM_BINS,), over the images of all seeds.

    `confidence` and `accuracy` are means from 0 to 1, nan in a bin without images. A confidence of
    1 is in the last bin.
    """

    count: Integers
    confidence: Floats
    accuracy: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionStatistics:
    """Statistics of clean or of adversarial outputs; figures are means over seeds.

    `accuracy`, `confidence`, `ece`, `confidence_right` and `confidence_wrong` are in percent, `nll`
    in nats, and `brier` is between 0 and 2; the confidence where a model is right is None if it
    never is. The accuracy on adversarial images is that of the outputs. The histograms,
    (NUM_HISTOGRAM_BINS,), count the confidences of right and wrong predictions of all seeds between
    0 and 1. `confusion_by_seed` counts the images of each seed, (k,), for each pair of label and
    predicted class that occurs, and `by_seed` has the values of the measures that are compared
    between methods.
    """

    accuracy: Figure | None
    confidence: Figure | None
    ece: Figure | None
    brier: Figure | None
    nll: Figure | None
    confidence_right: Figure | None
    confidence_wrong: Figure | None
    reliability: Reliability
    histogram_right: Integers
    histogram_wrong: Integers
    confusion_by_seed: Mapping[tuple[int, int], tuple[int, ...]]
    by_seed: Mapping[str, SeedValues]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputStatistics:
    """Statistics of the outputs of one model under one attack, over the `seeds` that have outputs.

    `suite` is the label of the attack. `kl`, KL(clean || adversarial), is in nats,
    `total_variation` in percent; `linf` and `l2` are the mean sizes of perturbations.
    `robust_by_class`, in percent, comes from the per-example outcomes of the records.
    `class_sizes` (K,) counts the images of each class. `gallery` has the first seed's outputs on
    the images that were kept, None without any. `by_seed` has the values of the measures of
    consistency that are compared between methods.
    """

    group: SeedGroup
    attack: Attack
    suite: str
    seeds: tuple[int | None, ...]
    n: int
    class_names: tuple[str, ...]
    class_sizes: Integers
    clean: PredictionStatistics
    adversarial: PredictionStatistics
    kl: Figure | None
    total_variation: Figure | None
    linf: Figure | None
    l2: Figure | None
    robust_by_class: tuple[Figure | None, ...]
    gallery: Outputs | None
    by_seed: Mapping[str, SeedValues]

    @property
    def clean_by_class(self) -> tuple[Figure | None, ...]:
        """The clean accuracy on the images of each class, in percent."""
        correct = np.zeros((len(self.seeds), len(self.class_sizes)), np.int64)
        for (label, predicted), counts in self.clean.confusion_by_seed.items():
            if label == predicted:
                correct[:, label] = counts
        return figures_by_class(dict(zip(self.seeds, correct, strict=True)), self.class_sizes)


def figures_by_class(
    correct: Mapping[int | None, npt.NDArray[np.integer]], sizes: Integers
) -> tuple[Figure | None, ...]:
    """Return the accuracy on each class from its counts by seed; None for a class of no images."""
    return tuple(
        accuracy({seed: int(counts[c]) for seed, counts in correct.items()}, int(size))
        for c, size in enumerate(sizes)
    )
