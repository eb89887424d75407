"""Scalars of a training run for TensorBoard, which is an optional dependency."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, argument
from adrbench.results.history import HistoryRow, read_history
from adrbench.runtime.files import check_writable
from adrbench.training.callbacks import NoCallbacks
from adrbench.training.checkpointer import HISTORY


class TensorBoard(NoCallbacks):
    """Callbacks that write the scalars of each epoch to a subdirectory of `log_dir`.

    The subdirectory has the name of the `run`, a run directory. When a run is resumed, what an
    earlier session wrote is superseded by the run's history, so that TensorBoard shows each epoch
    once, including those before the logging was requested.

    Raises:
        AdrbenchError: when TensorBoard is not installed, or `log_dir` is not writable.

    """

    def __init__(self, log_dir: Path, run: Path) -> None:
        self._make_writer = find_summary_writer()
        check_writable(log_dir)
        self.log_dir = log_dir / run.name
        self.run = run
        self._writer: Any = None

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Open the log, and write the epochs before `epoch` from the history of the run."""
        self._open([row for row in read_history(self.run / HISTORY) if row.epoch < epoch])

    def _open(self, rows: Sequence[HistoryRow]) -> None:
        """Open the log, and replace what it holds by `rows`."""
        self._writer = self._make_writer(log_dir=str(self.log_dir), purge_step=0)
        seconds_left = sum(row.seconds for row in rows)
        for row in rows:
            seconds_left -= row.seconds
            self._write(row, time.time() - seconds_left)
        self._writer.flush()

    def epoch(self, row: HistoryRow) -> None:
        """Write an epoch to the disk."""
        self._write(row, time.time())
        self._writer.flush()

    def close(self) -> None:
        """Close the log, if it was opened."""
        if self._writer is not None:
            self._writer.close()

    def complete(self) -> None:
        """Write the history of a run that was finished before, so that nothing was trained."""
        if self._writer is None and (rows := read_history(self.run / HISTORY)):
            self._open(rows)

    def _write(self, row: HistoryRow, at: float) -> None:
        for name, value in list_scalars(row).items():
            self._writer.add_scalar(name, value, global_step=row.epoch, walltime=at)


def find_summary_writer() -> Callable[..., Any]:
    """Return torch's writer of event files; AdrbenchError unless TensorBoard is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise AdrbenchError(
            f"{argument('tensorboard')} needs the package tensorboard, which is not installed: run "
            '`pip install "adrbench[tensorboard]"`.'
        ) from error
    writer: Callable[..., Any] = SummaryWriter
    return writer


def list_scalars(row: HistoryRow) -> Mapping[str, float]:
    """Return the scalars of an epoch by their tags; accuracies are in percent."""
    split = {"val": "validation", "test": "test"}[row.select]
    accuracies = {
        f"{split}/{weights}_{criterion}_accuracy": row.accuracy(weights, criterion)
        for weights in row.counts
        for criterion in ("clean", "robust")
    }
    return {
        "train/loss": row.train_loss,
        "train/learning_rate": row.lr,
        **{f"train/{name}": value for name, value in row.annealed.items()},
        "train/images_per_second": row.images_per_second,
        **accuracies,
    }
