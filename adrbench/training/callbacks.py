"""Callbacks of the training loop, for example to display or to log the progress of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from adrbench.config.settings import TrainConfig
from adrbench.errors import UsageError
from adrbench.registry import calling_user_code
from adrbench.results.history import HistoryRow


class Callbacks(Protocol):
    """Functions that the training loop calls on every rank (see `NoCallbacks`)."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Note that training starts or resumes in `epoch`, from 1, after `steps` of its steps."""

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Note that step `step` of `epoch`, both from 1, was taken with the `annealed` numbers.

        `loss` is the latest one received from the device, which may belong to an earlier step.
        """

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` images of a stage of the validation of `weights` are done."""

    def epoch(self, row: HistoryRow) -> None:
        """Note that an epoch was finished, validated and saved."""


#: The functions that callbacks have.
NAMES = ("begin", "step", "validation", "epoch")


class NoCallbacks:
    """Callbacks that do nothing; a subclass defines the functions that it needs.

    Example:
        >>> from adrbench import NoCallbacks
        >>> class Log(NoCallbacks):
        ...     def epoch(self, row):
        ...         print(row.epoch, row.train_loss, row.accuracy("student", "robust"))

    """

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Do nothing."""

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        """Do nothing."""

    def epoch(self, row: HistoryRow) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class CallbackFunctions:
    """Callbacks that are composed of functions."""

    begin: Callable[..., None]
    step: Callable[..., None]
    validation: Callable[..., None]
    epoch: Callable[..., None]


def combine(*several: Callbacks) -> Callbacks:
    """Return callbacks that call each of `several` in order."""

    def call_each(name: str, *arguments: Any) -> None:
        for one in several:
            getattr(one, name)(*arguments)

    return CallbackFunctions(**{name: partial(call_each, name) for name in NAMES})


def check_callbacks(callbacks: Callbacks) -> Callbacks:
    """Return a user's callbacks, whose exceptions become errors of one sentence.

    The callbacks that are returned raise UserCodeError.

    Raises:
        UsageError: for an object that lacks a function.

    """
    kind = type(callbacks).__name__
    for name in NAMES:
        if isinstance(callbacks, type) or not callable(getattr(callbacks, name, None)):
            raise UsageError(
                f"callbacks is {callbacks!r:.40}, which has no function {name} to call: pass an "
                "instance of a subclass of adrbench.NoCallbacks."
            )

    def call(name: str, *arguments: Any) -> None:
        with calling_user_code(
            lambda raised: f"{name} of the callbacks {kind} {raised}; any saved state is kept."
        ):
            getattr(callbacks, name)(*arguments)

    return CallbackFunctions(**{name: partial(call, name) for name in NAMES})
