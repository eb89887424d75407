"""Warnings that a robust accuracy may be unreliable, and what the official warnings mean."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ReliabilityWarning(UserWarning):
    """A finding during an evaluation that makes its robust accuracy unreliable."""


RANDOMIZED = (
    "the model's outputs differ from one pass to the next, so gradients are noisy and the robust "
    "accuracy may be too high: use the suite autoattack-rand."
)
PROBABILITIES = (
    "the model's outputs look like probabilities: attacks need logits, and a final softmax masks "
    "gradients and inflates the robust accuracy."
)
ZERO_GRADIENT = (
    "some images had a gradient of exactly zero, so gradient attacks could not change them: the "
    "robust accuracy may be too high (gradient masking)."
)

#: Pattern of an official warning -> its explanation, formatted with the pattern's groups.
EXPLANATIONS = {
    "zero gradient": ZERO_GRADIENT,
    r"Square Attack has decreased the robust accuracy of ([\d.]+%)": (
        "Square, which needs no gradients, reduced the robust accuracy under the gradient "
        "attacks by {0}: gradients are probably masked and the robust accuracy is too high."
    ),
    "dynamic defense": (
        "the model computes gradients inside its forward pass: AutoAttack may not be "
        "sufficient; use an adaptive attack."
    ),
}


@contextmanager
def collected_warnings() -> Iterator[Callable[[], list[str]]]:
    """Yield a list that collects the texts of ReliabilityWarnings; pass other warnings on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ReliabilityWarning)

        def texts() -> list[str]:
            ours = [w for w in caught if issubclass(w.category, ReliabilityWarning)]
            return list(dict.fromkeys(str(w.message) for w in ours))

        yield texts
    for other in caught:
        if not issubclass(other.category, ReliabilityWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def explain_warning(message: str) -> str | None:
    """Return what an official warning means; None for any other warning."""
    for pattern, explanation in EXPLANATIONS.items():
        match = re.search(pattern, message)
        if match:
            return explanation.format(*match.groups())
    return None
