"""ADR: annealing self-distillation rectification (Wu, Wang and Chen, ICLR 2024)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.components import ADRSettings
from adrbench.errors import UsageError
from adrbench.methods.schedules import Schedule, cosine
from adrbench.methods.slots import BuildContext, Values


class ADR:
    """The target rectifier of ADR (Wu, Wang and Chen, ICLR 2024, arXiv 2305.12118).

    The target of an image is a mixture of its one-hot label and the output of a teacher, usually an
    EMA of the model, on the clean image. Over a run of `total_steps` optimization steps the
    teacher's temperature is annealed along half a cosine from `temperature[0]` to `temperature[1]`,
    and the interpolation factor lambda rises from `interpolation[0]` to `interpolation[1]`. Where
    the teacher predicts a wrong class, lambda is reduced by the difference between the
    probabilities of that class and of the true class.

    Raises:
        UsageError: for a temperature not above 0, a factor outside [0, 1], or no steps.

    """

    def __init__(
        self,
        *,
        total_steps: int,
        temperature: tuple[float, float] = (2.5, 2.0),
        interpolation: tuple[float, float] = (0.7, 0.95),
    ) -> None:
        if total_steps < 1:
            raise UsageError(f"total_steps is {total_steps}: give the run's number of steps.")
        if min(temperature) <= 0:
            raise UsageError(f"temperature is {temperature}: give numbers above 0.")
        if not 0 <= min(interpolation) <= max(interpolation) <= 1:
            raise UsageError(f"interpolation is {interpolation}: give numbers from 0 to 1.")
        self.total_steps = total_steps
        self.temperature: Schedule = cosine(*temperature, total_steps)
        self.interpolation: Schedule = cosine(*interpolation, total_steps)
        self._shown = f"temperature={temperature}, interpolation={interpolation}"

    def __repr__(self) -> str:
        return f"ADR(total_steps={self.total_steps}, {self._shown})"

    def __call__(self, logits: Tensor, y: Tensor, step: int) -> Tensor:
        """Return the rectified labels, (N, C), each row summing to 1, without gradient.

        Args:
            logits: the teacher's outputs on the clean images, (N, C).
            y: labels, (N,) int64.
            step: the optimization step, counted from 0 over the whole run.

        """
        return rectify(logits, y, **self.annealed(step))

    def annealed(self, step: int) -> dict[str, float]:
        """Return the temperature and the interpolation factor at a step."""
        return {"temperature": self.temperature(step), "interpolation": self.interpolation(step)}


def rectify(
    logits: Tensor, y: Tensor, *, temperature: float | Tensor, interpolation: float | Tensor
) -> Tensor:
    """Return ADR's targets, (N, C), for a teacher's `logits` (N, C) on images with labels (N,).

    With P the teacher's softmax at `temperature`, the target of an image is
    l P + (1 - l) onehot(y), where l = clamp(interpolation - (max P - P_y), 0, 1) (Wu, Wang and
    Chen, ICLR 2024).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    teacher = F.softmax(logits.detach().to(dtype) / temperature, dim=1)
    label_probability = teacher.gather(1, y[:, None])  # (N, 1)
    excess = teacher.amax(1, keepdim=True) - label_probability  # (N, 1)
    factor = (interpolation - excess).clamp(0, 1)  # (N, 1)
    return factor * teacher + (1 - factor) * F.one_hot(y, logits.shape[1]).to(dtype)


class Rectified:
    """Labels rectified by ADR with the outputs of `teacher`, in eval mode, on the clean batch."""

    def __init__(self, rectifier: ADR, teacher: nn.Module) -> None:
        self.rectifier = rectifier
        self.teacher = teacher

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return the rectified labels for this batch."""
        with torch.no_grad():
            return rectify(
                self.teacher(x),
                y,
                temperature=values["temperature"],
                interpolation=values["interpolation"],
            )

    def annealed(self, step: int) -> dict[str, float]:
        """Return the temperature and the interpolation factor."""
        return self.rectifier.annealed(step)


def build(context: BuildContext, settings: ADRSettings) -> Rectified:
    """Return the targets, with the averaged model as teacher."""
    assert context.average is not None, "ADR needs averaging"
    rectifier = ADR(
        total_steps=context.total_steps,
        temperature=(settings.temperature_high, settings.temperature_low),
        interpolation=(settings.interpolation_low, settings.interpolation_high),
    )
    return Rectified(rectifier, context.average)
