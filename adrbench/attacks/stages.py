"""Stages of a suite: what an attack must have, and what it may have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

from adrbench.attacks.pgd import LabelLoss, margin
from adrbench.config.threat import ThreatModel
from adrbench.registry import UserCodeError, calling_user_code

#: Further warnings based on a model and a few images (N, C, H, W).
Inspection = Callable[[nn.Module, Tensor], None]
#: Further warnings based on the accuracy after each stage, in order; that of "clean" is the first.
Review = Callable[[Mapping[str, float]], None]


@runtime_checkable
class Stage(Protocol):
    """One attack of a suite: an object with a `name` and a method `perturb`.

    It may also have:

    * `bind(threat, num_classes, seed)`, which returns the stage to run, so that an attack can be
      declared before its threat model is known.
    * `label_loss`, the function (logits, labels) -> scalar whose gradients it follows, or None if
      it uses no gradients; the margin by default. Before the attack, the model is checked for
      usable gradients of this loss.
    * `for_randomized`, whether it is made for models whose outputs vary from pass to pass.
    * `batch_dependent`, whether its outcomes are reproducible only at the same batch size.
    * `inspect(model, x)` and `review(accuracies)`, which may issue `ReliabilityWarning`s based on a
      few images before the attacks, and on the accuracies after them.
    * `num_passes`, the number of forward passes on a batch, for the progress display.
    * `maximize(model, x, y, indices)`, which takes and returns what `perturb` does but ends the
      search for no image: it returns the last iterate, or that of the highest loss. Outputs on
      them say how sure the model is under attack; None if the attack has no such iterates.
    * `perturb_maximizes`, whether `perturb` returns what `maximize` does, which then need not
      repeat the attack; False by default.
    * `describe_parameters()`, the plain values that identify the attack in records; by default,
      these are its class, its attributes and the code behind them.
    """

    @property
    def name(self) -> str:
        """The attack's name in records and tables."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return perturbed images with the shape and dtype of `x`.

        `x` is (N, C, H, W) float32 in [0, 1], `y` (N,) int64 labels, and `indices` (N,) int64 the
        positions of the images in the test set. `model` maps images to logits (N, num_classes)
        and is in eval mode, with parameters that need no gradients.
        """


def is_stage(value: object) -> TypeGuard[Stage]:
    """Return whether a value is an attack, and not the class of one."""
    return isinstance(value, Stage) and callable(value.perturb) and not isinstance(value, type)


def bind_stage(stage: Stage, threat: ThreatModel, num_classes: int, seed: int) -> Stage:
    """Return the stage to run under a threat model.

    Raises:
        UserCodeError: when its `bind` raises or returns no attack, or an attribute is not usable.

    """
    with calling_user_code(lambda raised: f"attack {stage.name} {raised} when it was bound."):
        bind = getattr(stage, "bind", None)
        bound = stage if bind is None else bind(threat, num_classes, seed)
        if not is_stage(bound):
            raise UserCodeError(
                f"bind of {stage.name} returned a {type(bound).__name__}: it must return the "
                "attack to run."
            )
        _check_optional(bound)
    return bound


def _check_optional(stage: Stage) -> None:
    """Raise UserCodeError for an optional attribute of a wrong type."""
    loss = getattr(stage, "label_loss", None)
    if loss is not None and not callable(loss):
        raise UserCodeError(
            f"label_loss of {stage.name} is {loss!r:.40}: it must be a function (logits, labels) "
            "-> scalar, or None."
        )
    maximize = getattr(stage, "maximize", None)
    if maximize is not None and not callable(maximize):
        raise UserCodeError(
            f"maximize of {stage.name} is {maximize!r:.40}: it must be a method (model, x, y, "
            "indices) -> images, or None."
        )
    passes = getattr(stage, "num_passes", 0)
    if not isinstance(passes, int) or passes < 0:
        raise UserCodeError(
            f"num_passes of {stage.name} is {passes!r:.40}: it must be a number of forward passes."
        )


def find_loss(stages: Sequence[Stage]) -> LabelLoss | None:
    """Return the loss whose gradients the stages rely on, None if they use no gradients.

    This is their common loss, or the margin where there are several: like the DLR loss and FAB, it
    uses differences of logits, which do not saturate where the cross-entropy does.
    """
    losses = [getattr(stage, "label_loss", margin) for stage in stages]
    used = _distinct([loss for loss in losses if loss is not None])
    return None if not used else used[0] if len(used) == 1 else margin


def find_inspections(stages: Sequence[Stage]) -> list[Inspection]:
    """Return the inspections of the stages, each once."""
    return _collect(stages, "inspect")


def find_reviews(stages: Sequence[Stage]) -> list[Review]:
    """Return the reviews of the stages, each once."""
    return _collect(stages, "review")


def _collect(stages: Sequence[Stage], name: str) -> list[Any]:
    found = [getattr(stage, name, None) for stage in stages]
    return _distinct([one for one in found if one is not None])


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return each value once, also of values that cannot be hashed."""
    return [one for position, one in enumerate(values) if one not in values[:position]]
