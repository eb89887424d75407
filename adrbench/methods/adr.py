"""Targets: what the loss compares the model's outputs with, as probabilities."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.errors import UsageError
from adrbench.methods.schedules import Schedule, cosine

#: What changes from step to step, by name: numbers, or 0-dimensional tensors that hold them.
Values = Mapping[str, float | Tensor]


class Targets(Protocol):
    """Rows of probabilities for a batch."""

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return (N, C) probabilities for images (N, C, H, W) of labels (N,).

        `values` holds at least what `annealed` names.
        """

    def annealed(self, step: int) -> dict[str, float]:
        """Return what changes over a run, by name, at an optimisation step counted from 0."""


class OneHot:
    """The labels as they are."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, x: Tensor, y: Tensor, values: Values) -> Tensor:
        """Return one-hot rows of the images' type."""
        return F.one_hot(y, self.num_classes).to(torch.promote_types(x.dtype, torch.float32))

    def annealed(self, step: int) -> dict[str, float]:
        """Return nothing: labels do not change."""
        return {}


class ADR:
    """The target rectifier of ADR (Wu, Wang and Chen, ICLR 2024, arXiv 2305.12118).

    A label becomes a mixture of itself and of what a teacher, usually a moving average of the
    model, thinks of the clean image. Over a run of `total_steps` optimisation steps the
    teacher's temperature anneals along half a cosine from `temperature[0]` to `temperature[1]`
    while its share grows from `interpolation[0]` to `interpolation[1]`. Where the teacher
    prefers a wrong class, its share shrinks by the difference.

    Raises:
        UsageError: for a temperature not above 0, a share outside [0, 1], or no steps.

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
            step: the optimisation step, counted from 0 over the whole run.

        """
        return rectify(logits, y, **self.annealed(step))

    def annealed(self, step: int) -> dict[str, float]:
        """Return the temperature and the interpolation factor at a step."""
        return {"temperature": self.temperature(step), "interpolation": self.interpolation(step)}


def rectify(
    logits: Tensor, y: Tensor, *, temperature: float | Tensor, interpolation: float | Tensor
) -> Tensor:
    """Return ADR's targets, (N, C), for a teacher's `logits` (N, C) on images of labels (N,).

    With P the teacher's softmax at `temperature`, an image's target is s P + (1 - s) onehot(y),
    where s = clamp(interpolation - (max P - P_y), 0, 1) (Wu, Wang and Chen, ICLR 2024).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    teacher = F.softmax(logits.detach().to(dtype) / temperature, dim=1)
    of_label = teacher.gather(1, y[:, None])
    mistake = teacher.amax(1, keepdim=True) - of_label
    share = (interpolation - mistake).clamp(0, 1)
    return share * teacher + (1 - share) * F.one_hot(y, logits.shape[1]).to(dtype)


class Rectified:
    """Labels rectified by ADR, with `teacher` (in eval mode) looking at the clean batch."""

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
