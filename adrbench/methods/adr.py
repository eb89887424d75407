"""ADR: annealing self-distillation rectification (Wu, Wang and Chen, ICLR 2024)."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.components import ADRSettings
from adrbench.config.declare import is_number, is_whole_number
from adrbench.errors import UsageError
from adrbench.methods.schedules import Schedule, cosine
from adrbench.methods.slots import BuildContext, Values

#: How far the sum of a row of probabilities may be from 1.
SUM_TOLERANCE = 1e-2
#: Fewer logits than these rows may sum to 1 by coincidence, as in examples made by hand.
MIN_ROWS = 8


class ADR:
    """The target rectifier of ADR (Wu, Wang and Chen, ICLR 2024, arXiv 2305.12118).

    The target of an image is a mixture of its one-hot label and the output of a teacher, usually an
    EMA of the model, on the clean image. Over a run of `total_steps` optimization steps the
    teacher's temperature is annealed along half a cosine from `temperature[0]` to `temperature[1]`,
    and the interpolation factor lambda rises from `interpolation[0]` to `interpolation[1]`. Where
    the teacher predicts a wrong class, lambda is reduced by the difference between the
    probabilities of that class and of the true class.

    Raises:
        UsageError: for a temperature not above 0, a factor outside [0, 1], or no steps; from a
            call, for arguments of another type or shape.

    Example:
        >>> import torch
        >>> from adrbench import ADR
        >>> rectify = ADR(total_steps=100, temperature=(1.0, 1.0), interpolation=(0.5, 0.5))
        >>> rectify(torch.zeros(1, 2), torch.tensor([0]), step=0)
        tensor([[0.7500, 0.2500]])

    """

    def __init__(
        self,
        *,
        total_steps: int,
        temperature: tuple[float, float] = (2.5, 2.0),
        interpolation: tuple[float, float] = (0.7, 0.95),
    ) -> None:
        if not is_whole_number(total_steps) or total_steps < 1:
            raise UsageError(f"total_steps is {total_steps!r:.40}: give the run's number of steps.")
        if not _are_two_numbers(temperature) or not 0 < min(temperature) <= max(temperature):
            raise UsageError(f"temperature is {temperature!r:.40}: give two numbers above 0.")
        if not _are_two_numbers(interpolation) or not (
            0 <= min(interpolation) <= max(interpolation) <= 1
        ):
            raise UsageError(
                f"interpolation is {interpolation!r:.40}: give two numbers from 0 to 1."
            )
        self.total_steps = int(total_steps)
        self.temperature: Schedule = cosine(*temperature, self.total_steps)
        self.interpolation: Schedule = cosine(*interpolation, self.total_steps)
        self._shown = f"temperature={temperature}, interpolation={interpolation}"
        self._has_seen_logits = False

    def __repr__(self) -> str:
        return f"ADR(total_steps={self.total_steps}, {self._shown})"

    def __call__(self, logits: Tensor, y: Tensor, step: int) -> Tensor:
        """Return the rectified labels, (N, C), each row summing to 1, without gradient.

        Annealing ends at step `total_steps`; later steps use the final values, with a warning. The
        first call also checks that the logits of a batch are not probabilities, for which it waits
        for the device; later calls do not.

        Args:
            logits: the teacher's outputs on the clean images, (N, C), before the softmax.
            y: labels, (N,) int64.
            step: the optimization step, counted from 0 over the whole run.

        """
        _check_batch(logits, y)
        if not self._has_seen_logits and len(logits) >= MIN_ROWS and not _is_captured(logits):
            _check_not_probabilities(logits)
            self._has_seen_logits = True
        annealed = self.annealed(step)
        if step > self.total_steps:
            warnings.warn(
                f"step {step} is beyond total_steps={self.total_steps}: temperature and lambda "
                "keep their final values; give ADR the number of steps of the whole run.",
                stacklevel=2,
            )
        try:
            return rectify(logits, y, **annealed)
        except RuntimeError as error:  # on a GPU, such labels end the process with an assertion
            if y.is_cpu and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
                raise UsageError(
                    f"labels y are from {int(y.min())} to {int(y.max())}, but logits of "
                    f"{logits.shape[1]} classes require labels from 0 to {logits.shape[1] - 1}."
                ) from error
            raise

    def annealed(self, step: int) -> dict[str, float]:
        """Return the temperature and the interpolation factor at a step, counted from 0."""
        if not is_whole_number(step) or step < 0:
            raise UsageError(f"step is {step!r:.40}: give a whole number from 0 on.")
        return {"temperature": self.temperature(step), "interpolation": self.interpolation(step)}


def _are_two_numbers(value: object) -> bool:
    """Return whether `value` is a pair of finite numbers."""
    if not isinstance(value, Sequence) or len(value) != 2:
        return False
    return all(is_number(one) and math.isfinite(one) for one in value)


def _check_batch(logits: Tensor, y: Tensor) -> None:
    """Raise UsageError unless logits and labels have valid types and shapes."""
    for name, value in (("logits", logits), ("y", y)):
        if not isinstance(value, Tensor):
            raise UsageError(f"{name} is a {type(value).__name__}: pass a tensor.")
    if logits.ndim != 2 or not logits.is_floating_point():
        raise UsageError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}: pass the teacher's "
            "outputs, floating-point numbers of shape (N, classes)."
        )
    if y.dtype != torch.int64 or y.shape != logits.shape[:1]:
        raise UsageError(
            f"labels y are {y.dtype} of shape {tuple(y.shape)}: pass int64 class indices of shape "
            f"({logits.shape[0]},), one per row of the logits."
        )
    if y.device != logits.device:
        raise UsageError(
            f"labels y are on {y.device} and logits on {logits.device}: move both to one device."
        )


def _is_captured(tensor: Tensor) -> bool:
    """Return whether a CUDA graph or a compiled function is recorded, which has no values."""
    if torch.compiler.is_compiling():
        return True
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _check_not_probabilities(logits: Tensor) -> None:
    """Raise UsageError if every row of `logits` is a row of probabilities."""
    values = logits.detach()
    sums = values.sum(1, dtype=torch.float64)
    if bool((values >= 0).all() & ((sums - 1).abs() < SUM_TOLERANCE).all()):
        raise UsageError(
            "logits are probabilities, since every row is non-negative and sums to 1: pass the "
            "teacher's outputs before the softmax."
        )


def rectify(
    logits: Tensor, y: Tensor, *, temperature: float | Tensor, interpolation: float | Tensor
) -> Tensor:
    """Return ADR's targets, (N, C), for a teacher's `logits` (N, C) on images with labels (N,).

    With P the teacher's softmax at `temperature`, the target of an image is
    l P + (1 - l) onehot(y), where l = clamp(interpolation - (max P - P_y), 0, 1) (Wu, Wang and
    Chen, ICLR 2024).
    """
    teacher = soften(logits, temperature)
    label_probability = teacher.gather(1, y[:, None])  # (N, 1)
    excess = teacher.amax(1, keepdim=True) - label_probability  # (N, 1)
    factor = (interpolation - excess).clamp(0, 1)  # (N, 1)
    return factor * teacher + (1 - factor) * F.one_hot(y, logits.shape[1]).to(teacher.dtype)


def soften(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the softmax of `logits` (N, C) at a temperature, in float32 or better."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.softmax(logits.detach().to(dtype) / temperature, dim=1)


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
