"""Callbacks of the training loop, for example to display the progress of a run."""

from collections.abc import Mapping
from typing import Protocol

from adrbench.config.settings import TrainConfig
from adrbench.results.history import HistoryRow


class Callbacks(Protocol):
    """Functions that the training loop calls on every rank."""

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


class NoCallbacks:
    """Callbacks that do nothing."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Do nothing."""

    def validation(self, weights: str, stage: str, done: int, total: int) -> None:
        """Do nothing."""

    def epoch(self, row: HistoryRow) -> None:
        """Do nothing."""
