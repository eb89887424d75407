"""Warnings that a robust accuracy may be unreliable, and what the official warnings mean."""

import re


class ReliabilityWarning(UserWarning):
    """A finding during an evaluation that makes its robust accuracy unreliable."""


#: Pattern of an official warning -> its explanation, formatted with the pattern's groups.
EXPLANATIONS = {
    "randomized defense": (
        "the model's outputs differ from one pass to the next, so gradients are noisy and "
        "the robust accuracy may be too high: use --suite autoattack-rand."
    ),
    "output is a probability distribution": (
        "the model's outputs look like probabilities: attacks need logits, and a final softmax "
        "masks gradients and makes the robust accuracy too high."
    ),
    "zero gradient": (
        "some images had a gradient of exactly zero, so gradient attacks could not change "
        "them: the robust accuracy may be too high (gradient masking)."
    ),
    r"Square Attack has decreased the robust accuracy of ([\d.]+%)": (
        "Square, which needs no gradients, took {0} off the robust accuracy under the gradient "
        "attacks: gradients are probably masked and the robust accuracy is too high."
    ),
    "dynamic defense": (
        "the model computes gradients inside its forward pass: AutoAttack may not be enough, "
        "use an adaptive attack."
    ),
}


def explain_warning(message: str) -> str | None:
    """Return what an official warning means; None for a warning from elsewhere."""
    for pattern, explanation in EXPLANATIONS.items():
        match = re.search(pattern, message)
        if match:
            return explanation.format(*match.groups())
    return None
