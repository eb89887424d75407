"""Softmax outputs of a model with the labels, and what each image contributes to a measure."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32] | Floats
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (n, K) and labels (n,); everything is computed in float64.

    Raises:
        ValueError: if a logit is not finite, since its softmax is undefined.

    """

    logits: Logits
    labels: Integers

    def __post_init__(self) -> None:
        num_undefined = int((~np.isfinite(self.logits).all(axis=1)).sum())
        if num_undefined:
            raise ValueError(f"the logits of {num_undefined} images are not finite")

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return int(self.logits.shape[1])

    @cached_property
    def log_probabilities(self) -> Floats:
        """The log-softmax (n, K), which is finite for all finite logits."""
        shifted = self.logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return shifted

    @cached_property
    def probabilities(self) -> Floats:
        """The softmax (n, K)."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Integers:
        """The predicted class (n,), the first of several with the same logit."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def is_right(self) -> Booleans:
        """Whether the predicted class is the label, (n,)."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def confidence(self) -> Floats:
        """The probability of the predicted class, (n,), in [1/K, 1]."""
        return np.asarray(self.probabilities.max(axis=1))

    @cached_property
    def negative_log_likelihood(self) -> Floats:
        """The negative logarithm of the probability of the label, (n,), in nats."""
        chosen = np.take_along_axis(self.log_probabilities, self.labels[:, None], axis=1)
        return np.abs(chosen[:, 0])  # abs makes 0 of -0

    @cached_property
    def squared_error(self) -> Floats:
        """The squared distance of the softmax from the one-hot label, (n,), in [0, 2]."""
        error = self.probabilities.copy()
        error[np.arange(len(error)), self.labels] -= 1
        return np.asarray((error * error).sum(axis=1))

    def confusion(self) -> dict[tuple[int, int], int]:
        """Return the number of images of each pair of label and predicted class that occurs."""
        codes = self.labels * self.num_classes + self.predicted
        found, counts = np.unique(codes, return_counts=True)
        labels, predicted = np.divmod(found, self.num_classes)
        keys = zip(labels.tolist(), predicted.tolist(), strict=True)
        return dict(zip(keys, counts.tolist(), strict=True))


def divergence(clean: Predictions, adversarial: Predictions) -> Floats:
    """Return KL(clean || adversarial) of each image, (n,), in nats."""
    ratio = clean.log_probabilities - adversarial.log_probabilities
    found = (clean.probabilities * ratio).sum(axis=1)
    return np.asarray(np.maximum(found, 0))  # rounding may make it negative


def total_variation(clean: Predictions, adversarial: Predictions) -> Floats:
    """Return half the L1 distance between the two softmax outputs of each image, (n,)."""
    return np.asarray(np.abs(clean.probabilities - adversarial.probabilities).sum(axis=1) / 2)
