"""Training: the loop over epochs, who hears of it, and what chooses the best epoch."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from adrbench.attacks.suites import build_suite
from adrbench.config.settings import AttackConfig, TrainConfig
from adrbench.data import Dataset, epoch_batches
from adrbench.errors import AdrbenchError, LostProcessError
from adrbench.evaluation.evaluate import evaluate
from adrbench.results.provenance import describe_device, now
from adrbench.results.records import Session, TrainRecord
from adrbench.runtime.cuda_graphs import LossBuffer
from adrbench.runtime.files import write_atomically
from adrbench.runtime.locks import exclusive
from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup, same_on_all_ranks
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.training.resuming import has_state, keep_record, read_own_record, remove, resume
from adrbench.training.saving import CONFIG, LOCK, Saver, check_finite, save
from adrbench.training.state import HistoryRow, Run, describe, prepare, selection_images
from adrbench.training.step import Stepper

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 250
SAVE_SECONDS = 300.0


class Callbacks(Protocol):
    """Who is told how a run goes."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Hear that training starts or goes on in `epoch`, from 1, of which `steps` are taken."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Hear of a step; `values` has loss, lr, temperature and interpolation.

        The loss is the last that arrived from the device, which may be that of an earlier step.
        """

    def epoch(self, row: HistoryRow) -> None:
        """Hear of an epoch that is done, validated and saved."""


class NoCallbacks:
    """Tells nobody."""

    def begin(self, config: TrainConfig, steps_per_epoch: int, epoch: int, steps: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, values: dict[str, Any]) -> None:
        """Do nothing."""

    def epoch(self, row: HistoryRow) -> None:
        """Do nothing."""


def train(
    config: TrainConfig,
    dataset: Dataset,
    directory: Path,
    *,
    device: torch.device,
    force: bool = False,
    callbacks: Callbacks | None = None,
    save_seconds: float = SAVE_SECONDS,
    stop: StopRequest | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    record: Path | None = None,
) -> TrainRecord:
    """Train as `config` says into `directory`, going on where an earlier call was stopped.

    Returns the record of the whole run, at once when it was finished before, and writes it to the
    file `record`. `force` starts over. The run is saved after every epoch, within an epoch every
    `save_seconds`, and when `stop` hears a signal. Every rank of
    `process_group` calls this, and rank 0 writes.

    Raises:
        AdrbenchError: when the directory holds another run, somebody else is writing it, or the
            loss stops being finite.
        DataError: when the training part is smaller than one batch.
        Interrupted: after saving, when `stop` heard a signal.

    """
    callbacks = callbacks or NoCallbacks()
    stop = stop or StopRequest()
    run = prepare(config, dataset, directory, device, process_group)
    if not same_on_all_ranks(process_group, (config, run.data_sha256, run.selection_sha256)):
        raise AdrbenchError(
            f"the processes have different settings or images of {config.dataset}: give all the "
            "same command and the same files."
        )
    with only_ours(directory, record, process_group):
        if force and process_group.is_rank_zero:
            remove(directory)
            if record:
                record.unlink(missing_ok=True)
        process_group.barrier()
        if has_state(run):
            resume(run)
        if record and record.exists() and process_group.is_rank_zero:
            read_own_record(record, config)
        if not run.finished:
            start_session(run, callbacks)
        stepper = Stepper(run)
        saver = Saver(run, save_seconds, stop)
        with stop.deferred():
            while not run.finished:
                callbacks.epoch(run_epoch(run, stepper, callbacks, saver))
            made = describe(run)
            if record and process_group.is_rank_zero:
                keep_record(record, made)
    return made


@contextmanager
def only_ours(directory: Path, record: Path | None, process_group: ProcessGroup) -> Iterator[None]:
    """Be the only run that writes to a directory and a record."""
    with ExitStack() as locks:
        name = "give another --name"
        locks.enter_context(
            exclusive(
                directory / LOCK, of=str(directory), instead=name, process_group=process_group
            )
        )
        if record:
            path = record.with_name(f".{record.stem}.lock")
            instead = f"{name} or --results"
            locks.enter_context(
                exclusive(path, of=str(record), instead=instead, process_group=process_group)
            )
        yield


def start_session(run: Run, callbacks: Callbacks) -> None:
    """Note who goes on with the run, and tell."""
    step = run.steps_done
    session = Session(
        first_step=step,
        processes=run.process_group.size,
        device=describe_device(run.device),
        started=now(),
    )
    if run.sessions:
        former = run.sessions[-1]
        if former.processes != session.processes:
            logger.warning(
                f"processes now: {session.processes}, before: {former.processes}; other shares of "
                "a batch give BatchNorm other statistics."
            )
        if former.device != session.device:
            logger.warning(f"device now: {session.device}, before: {former.device}.")
    if run.config.sync_batch_norm and run.process_group.size == 1:
        logger.warning("--sync-batch-norm has nothing to do with one process.")
    run.sessions[:] = [earlier for earlier in run.sessions if earlier.first_step < step]
    run.sessions.append(session)
    if run.process_group.is_rank_zero:
        content = json.dumps(run.config.to_json(), indent=1) + "\n"
        write_atomically(run.directory / CONFIG, content.encode())
    callbacks.begin(run.config, run.steps_per_epoch, run.epochs_done + 1, run.losses.recorded)


def run_epoch(run: Run, stepper: Stepper, callbacks: Callbacks, saver: Saver) -> HistoryRow:
    """Train what is left of an epoch, validate, keep the best, save; return the history row."""
    epoch = run.epochs_done + 1
    take_steps(run, stepper, callbacks, saver)
    began = time.perf_counter()
    try:
        with saver.stop.immediate():
            counts = validate(run)
    except LostProcessError:
        save(run)
        raise
    except Interrupted as interruption:
        save(run)
        where = f"{run.directory} is saved before the validation of epoch {epoch}"
        raise Interrupted(interruption.number, where) from None
    row: HistoryRow = {
        "epoch": epoch,
        "train_loss": run.losses.mean(),
        **run.scheduled(run.steps_done - 1),
        **counts,
        "images_per_second": run.steps_per_epoch * run.config.batch_size / run.seconds,
        "seconds": run.seconds + time.perf_counter() - began,
    }
    run.history.append(row)
    run.losses, run.seconds = LossBuffer(run.steps_per_epoch, run.device), 0.0
    saver.after_epoch()
    return row


def take_steps(run: Run, stepper: Stepper, callbacks: Callbacks, saver: Saver) -> None:
    """Take the steps that are left of an epoch without waiting for the device on the way.

    Raises:
        AdrbenchError: soon after a loss is not finite, or at the end where the weights are not.
        Interrupted: after saving, when a signal was heard.

    """
    config = run.config
    epoch = run.epochs_done + 1
    began = time.perf_counter() - run.seconds
    run.model.train()
    batches = epoch_batches(
        run.dataset.train,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        padding=config.crop_padding,
        flip=config.flip,
        first_step=run.losses.recorded,
        share=(run.process_group.rank, run.process_group.size),
    )
    last_loss = math.nan
    for x, y in batches:
        step = run.steps_done
        run.losses.record(stepper(x, y, step))
        if arrived := run.losses.arrived():
            _, last_loss = arrived[-1]
        callbacks.step(epoch, run.losses.recorded, {"loss": last_loss, **run.scheduled(step)})
        run.seconds = time.perf_counter() - began
        saver.after_step()
    check_finite(run)


def validate(run: Run) -> HistoryRow:
    """Count clean and PGD accuracy of each set of weights on the split that chooses the best.

    The attack is that of training, with noise drawn per image, the same in every epoch.
    """
    images = selection_images(run.config, run.dataset)
    threat = run.config.threat_model()
    attack = AttackConfig(
        suite=f"pgd-{run.config.steps}",
        alpha=run.config.alpha,
        batch_size=VALIDATION_BATCH,
        seed=run.config.seed,
    )
    suite = build_suite(attack, threat, run.dataset.num_classes)
    row: HistoryRow = {
        "select": run.config.select,
        "select_n": len(images),
        "criterion": run.slots.objective.criterion,
    }
    for weights, model in run.models().items():
        verdicts = evaluate(
            model,
            images,
            suite,
            threat,
            batch_size=attack.batch_size,
            process_group=run.process_group,
        )
        row[f"{weights}_clean_correct"] = verdicts.clean_correct
        row[f"{weights}_robust_correct"] = verdicts.robust_correct
    return row
