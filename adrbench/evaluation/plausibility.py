"""Whether the evaluated model is plausibly the intended one.

The criteria are its clean accuracy and its number of averaging steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: How many standard errors a count has to be away from what is expected of it.
STANDARD_ERRORS = 3.0
#: An average has caught up with the weights after this many time constants of its decay.
TIME_CONSTANTS = 3


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many of `n` images are classified correctly."""

    correct: int
    n: int

    @property
    def fraction(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.correct / self.n

    def __str__(self) -> str:
        return f"{100 * self.fraction:.1f} % ({self.correct:,} of {self.n:,})"


def doubt_accuracy(
    found: Accuracy, *, num_classes: int, recorded: Accuracy | None = None
) -> Iterator[str]:
    """Yield a sentence for each reason to doubt a clean accuracy, such as a wrong normalization.

    One reason is an accuracy of less than half of that `recorded` in training and more than three
    standard errors below it. The other is an accuracy that does not exceed chance by three standard
    errors and is more than three below that of a classifier halfway between chance and perfection;
    with few images, the two cannot be distinguished.
    """
    causes = "check the data set, the architecture and the normalization of the weights."
    if recorded is not None and 2 * found.fraction < recorded.fraction:
        error = _standard_error(recorded.fraction, found.n, recorded.n)
        if found.fraction < recorded.fraction - STANDARD_ERRORS * error:
            yield (
                f"the clean accuracy, {found}, is less than half of that recorded in training, "
                f"{recorded}: {causes}"
            )
    chance = 1 / num_classes
    fair = (1 + chance) / 2
    threshold = min(
        chance + STANDARD_ERRORS * _standard_error(chance, found.n),
        fair - STANDARD_ERRORS * _standard_error(fair, found.n),
    )
    if found.fraction <= threshold:
        yield (
            f"the clean accuracy, {found}, does not exceed chance ({100 * chance:.1f} %) by "
            f"{STANDARD_ERRORS:g} standard errors: {causes}"
        )


def doubt_average(*, steps: int, decay: float) -> Iterator[str]:
    """Yield a sentence if an exponential moving average has not caught up with the weights.

    After `steps` updates, the initial weights still contribute a fraction of decay^steps.
    """
    needed = _steps_to_catch_up(decay)
    if steps < needed:
        shown = "infinitely many" if math.isinf(needed) else f"{needed:,}"
        yield (
            f"the averaged weights have had {steps:,} updates, but with decay {decay:g} they need "
            f"{shown}, {TIME_CONSTANTS} / (1 - decay), to catch up: the initial weights still "
            f"contribute {100 * decay**steps:.0f} %; train longer, or attack the student weights."
        )


def _steps_to_catch_up(decay: float) -> int | float:
    """Return the number of steps after which an average has caught up, infinity for decay 1.

    The tolerance absorbs the rounding of 1 - decay: 3 / (1 - 0.9) is 30, not above.
    """
    if decay >= 1:
        return math.inf
    return math.ceil(TIME_CONSTANTS / (1 - decay) * (1 - 1e-9))


def _standard_error(fraction: float, *sizes: int) -> float:
    """Return the standard error of a difference of proportions over samples of these sizes."""
    return math.sqrt(fraction * (1 - fraction) * sum(1 / n for n in sizes))
