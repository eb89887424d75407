"""The targets of the method component `smooth`."""

from torch import Tensor
from torch.nn import functional as F

from adrbench.methods.slots import BuildContext, Values
from adrbench_example.components import SmoothSettings


class SmoothedLabels:
    """One-hot labels mixed with the uniform distribution."""

    def __init__(self, num_classes: int, smoothing: float) -> None:
        self.num_classes = num_classes
        self.smoothing = smoothing

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return (N, num_classes) probabilities for images (N, C, H, W) with labels (N,)."""
        one_hot = F.one_hot(y, self.num_classes).to(x.dtype)
        return (1 - self.smoothing) * one_hot + self.smoothing / self.num_classes

    def annealed(self, step: int) -> dict[str, float]:
        """Return no values, since the targets do not change during a run."""
        return {}


def build(context: BuildContext, settings: SmoothSettings) -> SmoothedLabels:
    """Return the targets for a run."""
    return SmoothedLabels(context.num_classes, settings.smoothing)
