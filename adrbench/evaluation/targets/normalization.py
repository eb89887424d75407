"""What --normalize accepts (a data set's name, "none", or MEAN/STD), and its module."""

import math

from torch import nn

from adrbench.checkpoints.third_party import Normalization
from adrbench.data import DATASETS
from adrbench.errors import UsageError, unknown_name
from adrbench.models.normalize import Normalized, normalization_buffers

#: Mean and standard deviation per channel by name, for pixels in [0, 1].
NORMALIZATIONS: dict[str, Normalization] = {
    name: (source.mean, source.std)
    for name, source in DATASETS.items()
    if source.mean is not None and source.std is not None
}
NONE = "none"
EXAMPLE = "0.5,0.5,0.5/0.25,0.25,0.25"


def parse_normalization(text: str) -> Normalization | None:
    """Return mean and standard deviation, for pixels in [0, 1]; None for "none".

    `text` is a name, or MEAN/STD, each one number for all channels or one per channel, separated
    by commas. Raises UsageError for any other text, a mean outside [0, 1], or a standard deviation
    outside (0, 1].
    """
    name = text.strip().lower()
    if name == NONE:
        return None
    if name in NORMALIZATIONS:
        return NORMALIZATIONS[name]
    if not any(character in text for character in "/,;.") and not name[:1].isdigit():
        raise unknown_name(
            "normalization", text, [*NORMALIZATIONS, NONE, f"MEAN/STD such as {EXAMPLE}"]
        )
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError as error:  # also for another number of parts than two
        raise UsageError(
            f"normalization {text!r} is not MEAN/STD: give two lists of numbers in [0, 1] such as "
            f"{EXAMPLE}, or one of {', '.join([*NORMALIZATIONS, NONE])}."
        ) from error
    if not all(math.isfinite(number) for number in (*mean, *std)) or min(*mean, *std) < 0:
        raise UsageError(
            f"normalization {text!r} has a number that is negative or not finite: give numbers "
            f"in [0, 1], such as {EXAMPLE}."
        )
    if max(*mean, *std) > 1:
        raise UsageError(
            f"normalization {text!r} is not for pixels in [0, 1]: divide mean and std by 255."
        )
    if min(std) == 0:
        raise UsageError(f"normalization {text!r} has a std of 0: give numbers above 0.")
    return tuple(mean), tuple(std)


def per_channel(normalization: Normalization, channels: int) -> Normalization:
    """Return a normalization with one value per channel, repeating a single value."""
    mean, std = (
        tuple(values) * channels if len(values) == 1 else tuple(values) for values in normalization
    )
    return mean, std


def normalize(network: nn.Module, normalization: Normalization | None, channels: int) -> nn.Module:
    """Return a network in eval mode with a normalization, if any, in front of it."""
    if normalization is None:
        return network.eval()
    return Normalized(network, *normalization_buffers(*normalization, channels)).eval()
