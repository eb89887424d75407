"""The measures of outputs, each a function of sums over images.

What an image contributes to the sums does not depend on the other images, so that a resample of the
images only weights the contributions: one matrix product computes thousands of resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from adrbench.report.outputs.predictions import (
    Booleans,
    Floats,
    Integers,
    Logits,
    Predictions,
    divergence,
    total_variation,
)

#: The bins of the expected calibration error, of equal width.
NUM_BINS = 15

Source = TypeVar("Source")


class Pair(NamedTuple):
    """Clean and adversarial outputs on the same n images, and the sizes of perturbations, (n,)."""

    clean: Predictions
    adversarial: Predictions
    linf: npt.NDArray[np.float32]
    l2: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Measure(Generic[Source]):
    """A measure from 0 to `highest`, which reports multiply by `scale`.

    `contribute` returns what each image adds to the `width` sums, (n, width); `compute` maps sums
    (..., width) over n images to values (...), which are nan where undefined.
    """

    contribute: Callable[[Source], Floats]
    compute: Callable[[Floats, int], Floats]
    width: int = 1
    scale: float = 1.0
    highest: float = float("inf")

    def of(self, source: Source) -> float:
        """Return the measure of `source` itself."""
        contributions = self.contribute(source)
        return float(self.compute(contributions.sum(axis=0), len(contributions)))


def find_bins(confidence: Floats) -> Integers:
    """Return the bin of each confidence: [0, 1/15), [1/15, 2/15), ..., [14/15, 1), and 1 alone.

    Confidences are compared with the edges in float32, as in torchmetrics, whose edges are made of
    multiples of float32(1/15) from the nearer end of [0, 1], each rounded once.
    """
    steps = np.arange(NUM_BINS + 1)
    width = float(np.float32(1 / NUM_BINS))
    edges = np.where(steps <= NUM_BINS // 2, steps * width, 1 - (NUM_BINS - steps) * width)
    return np.searchsorted(edges.astype(np.float32), confidence.astype(np.float32), "right") - 1


def _gaps_by_bin(predictions: Predictions) -> Floats:
    """Return confidence - outcome in the column of each image's bin, (n, NUM_BINS + 1)."""
    n = len(predictions.labels)
    gaps = np.zeros((n, NUM_BINS + 1))
    bins = find_bins(predictions.confidence)
    gaps[np.arange(n), bins] = predictions.confidence - predictions.is_right
    return gaps


def _calibration_error(sums: Floats, n: int) -> Floats:
    """Return the mean over images of the gap between confidence and accuracy of their bin."""
    return np.asarray(np.abs(sums).sum(axis=-1) / n)


def _column(values: Logits | Booleans) -> Floats:
    return values.astype(np.float64)[:, None]


def _mean(sums: Floats, n: int) -> Floats:
    return np.asarray(sums[..., 0] / n)


def _ratio(sums: Floats, n: int) -> Floats:
    """Return the mean over the images that count, of which the second column has the number."""
    total, count = sums[..., 0], sums[..., 1]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


#: The measures of clean or of adversarial outputs. The confidence where a model is right, and
#: where it is wrong, are compared in the first observation of ADR's paper.
CALIBRATION: dict[str, Measure[Predictions]] = {
    "accuracy": Measure(
        contribute=lambda p: _column(p.is_right), compute=_mean, scale=100, highest=1
    ),
    "confidence": Measure(
        contribute=lambda p: _column(p.confidence), compute=_mean, scale=100, highest=1
    ),
    "ece": Measure(
        contribute=_gaps_by_bin,
        compute=_calibration_error,
        width=NUM_BINS + 1,
        scale=100,
        highest=1,
    ),
    "brier": Measure(contribute=lambda p: _column(p.squared_error), compute=_mean, highest=2),
    "nll": Measure(contribute=lambda p: _column(p.negative_log_likelihood), compute=_mean),
    "confidence_right": Measure(
        contribute=lambda p: np.stack([p.confidence * p.is_right, p.is_right], axis=1),
        compute=_ratio,
        width=2,
        scale=100,
        highest=1,
    ),
    "confidence_wrong": Measure(
        contribute=lambda p: np.stack([p.confidence * ~p.is_right, ~p.is_right], axis=1),
        compute=_ratio,
        width=2,
        scale=100,
        highest=1,
    ),
}
#: The measures of clean and adversarial outputs together: the second observation of ADR's paper.
CONSISTENCY: dict[str, Measure[Pair]] = {
    "kl": Measure(contribute=lambda p: _column(divergence(p.clean, p.adversarial)), compute=_mean),
    "total_variation": Measure(
        contribute=lambda p: _column(total_variation(p.clean, p.adversarial)),
        compute=_mean,
        scale=100,
        highest=1,
    ),
    "linf": Measure(contribute=lambda p: _column(p.linf), compute=_mean),
    "l2": Measure(contribute=lambda p: _column(p.l2), compute=_mean),
}
#: The measures that are compared between methods: the size of perturbations depends on the attack,
#: and accuracies have a table of their own.
COMPARED = ("ece", "brier", "nll", "confidence_right", "confidence_wrong", "kl", "total_variation")
