"""Training: the loop over epochs, and their validation."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from adrbench.attacks.find_suite import build_suite
from adrbench.config.method import Weights
from adrbench.config.settings import SAVE_MINUTES, AttackConfig, TrainConfig
from adrbench.data import Dataset, epoch_batches
from adrbench.errors import AdrbenchError, NonFiniteLogitsError, argument
from adrbench.evaluation.evaluate import evaluate
from adrbench.evaluation.stage_runner import OnBatch, ProgressCallbacks
from adrbench.models.architectures import Architecture
from adrbench.models.frozen import ModelFreezer
from adrbench.models.refill import RefillingFreezer
from adrbench.printable import get_logger
from adrbench.results.history import Counts, HistoryRow
from adrbench.results.provenance import describe_device, now
from adrbench.results.records import Session, TrainRecord
from adrbench.runtime.arithmetic import AUTO, FLOAT32, choose_for_search
from adrbench.runtime.context import Context
from adrbench.runtime.files import remove_temporary_files
from adrbench.runtime.locks import exclusive
from adrbench.runtime.process_group import check_on_rank_zero
from adrbench.training.callbacks import Callbacks, NoCallbacks
from adrbench.training.checkpointer import FILES, LOCK, Checkpointer
from adrbench.training.divergence import check_finite, explain
from adrbench.training.resume_checks import check_regular_files, check_same_inputs
from adrbench.training.run_record import check_own_record, make_record, write_own_record
from adrbench.training.state import Run, TrainState, build_state, prepare_run, selection_images
from adrbench.training.step import Stepper

logger = get_logger(__name__)

VALIDATION_BATCH = 250


def train(
    config: TrainConfig,
    dataset: Dataset,
    directory: Path,
    *,
    context: Context,
    force: bool = False,
    callbacks: Callbacks | None = None,
    save_seconds: float = 60 * SAVE_MINUTES,
    record: Path | None = None,
    architecture: Architecture | None = None,
) -> TrainRecord:
    """Train with `config` in `directory`, resuming the run where it was interrupted.

    Returns the record of the whole run, immediately if it is already finished, and writes it to the
    file `record`. `force` starts over. The run is saved after every epoch, within an epoch every
    `save_seconds`, and when `context.stop` is requested. Every rank of the process group calls
    this, and rank 0 writes. `architecture` is needed if `config.arch` cannot be looked up by name,
    such as a callable passed in Python.

    Raises:
        AdrbenchError: when the directory contains another run, another process is writing to it, or
            the loss becomes non-finite.
        DataError: when the training part is smaller than one batch.
        Interrupted: once the run is saved, when `context.stop` was requested.

    """
    callbacks = callbacks or NoCallbacks()
    run = prepare_run(config, dataset, directory, context, architecture)
    state = build_state(run)
    check_same_inputs(run)
    is_rank_zero = context.process_group.is_rank_zero
    with locked(run, record):
        check_on_rank_zero(context.process_group, partial(check_regular_files, directory, FILES))
        checkpointer = Checkpointer(run, save_seconds=save_seconds)
        if force and is_rank_zero:
            if record:
                record.unlink(missing_ok=True)
            checkpointer.remove()
        context.process_group.barrier()
        checkpointer.restore(state)
        if record:
            check_on_rank_zero(context.process_group, partial(check_own_record, record, run, state))
        checkpointer.complete(state)
        if state.epochs_done < config.epochs:
            start_session(run, state)
            checkpointer.write_config(state)
            epoch = state.epochs_done + 1
            callbacks.begin(config, run.steps_per_epoch, epoch, state.losses.recorded)
        stepper, freezer = Stepper(run, state), RefillingFreezer()
        with context.stop.deferred():
            while state.epochs_done < config.epochs:
                row = run_epoch(run, state, stepper, checkpointer, callbacks, freezer=freezer)
                callbacks.epoch(row)
            finished = make_record(run, state)
            if record and is_rank_zero:
                finished = write_own_record(record, finished)
    return finished


@contextmanager
def locked(run: Run, record: Path | None) -> Iterator[None]:
    """Hold the locks of the run's directory and of its record, on rank 0."""
    locks = [(run.directory / LOCK, run.directory, f"give another {argument('name')}")]
    if record:
        lock = record.with_name(f".{record.stem}.lock")
        locks.append((lock, record, f"give another {argument('name')} or {argument('results')}"))
    group = run.context.process_group
    with ExitStack() as held:
        for lock, of, instead in locks:
            held.enter_context(exclusive(lock, of=str(of), instead=instead, process_group=group))
        if group.is_rank_zero:
            remove_temporary_files(run.directory, FILES)
        yield


def start_session(run: Run, state: TrainState) -> None:
    """Add a session to the state, and warn where it differs from the one before."""
    session = Session(
        first_step=state.steps_done,
        processes=run.context.process_group.size,
        device=describe_device(run.context.device),
        started=now(),
    )
    if state.sessions:
        former = state.sessions[-1]
        if former.processes != session.processes:
            logger.warning(
                f"processes now: {session.processes}, before: {former.processes}; the BatchNorm "
                "statistics depend on this number."
            )
        if former.device != session.device:
            logger.warning(f"device now: {session.device}, before: {former.device}.")
    if run.config.sync_batch_norm and session.processes == 1:
        logger.warning(f"{argument('sync_batch_norm')} has no effect with one process.")
    if run.config.compile == "on" and session.processes > 1:
        logger.warning(f"{argument('compile', 'on')} has no effect with several processes.")
    kept = [earlier for earlier in state.sessions if earlier.first_step < session.first_step]
    state.sessions = [*kept, session]


def run_epoch(
    run: Run,
    state: TrainState,
    stepper: Stepper,
    checkpointer: Checkpointer,
    callbacks: Callbacks,
    *,
    freezer: ModelFreezer,
) -> HistoryRow:
    """Train the rest of an epoch, validate with `freezer` and save; return its history row."""
    take_steps(run, state, stepper, checkpointer, callbacks)
    began = time.perf_counter()
    with checkpointer.saved_if_interrupted(state), stepper.uncompiled():
        counts = validate(run, state, callbacks, freezer)
    last_step = state.steps_done - 1
    row = HistoryRow(
        epoch=state.epochs_done + 1,
        train_loss=state.losses.mean(),
        lr=run.learning_rate(last_step),
        annealed=state.slots.targets.annealed(last_step),
        select=run.config.select,
        select_n=len(selection_images(run.config, run.dataset)),
        criterion=state.slots.objective.criterion,
        counts=counts,
        images_per_second=run.steps_per_epoch * run.config.batch_size / state.seconds,
        seconds=state.seconds + time.perf_counter() - began,
    )
    state.finish_epoch(row)
    checkpointer.after_epoch(state)
    return row


def take_steps(
    run: Run,
    state: TrainState,
    stepper: Stepper,
    checkpointer: Checkpointer,
    callbacks: Callbacks,
) -> None:
    """Take the remaining steps of an epoch, without waiting for the device in between.

    Raises:
        AdrbenchError: soon after a non-finite loss, or at the end if the weights are not finite.
        Interrupted: once the state is saved, when a stop was requested.

    """
    config, process_group = run.config, run.context.process_group
    epoch = state.epochs_done + 1
    began = time.perf_counter() - state.seconds
    state.model.train()
    batches = epoch_batches(
        run.dataset.train,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        padding=config.crop_padding,
        flip=config.flip,
        first_step=state.losses.recorded,
        share=(process_group.rank, process_group.size),
    )
    last_loss = math.nan
    for x, y in batches:
        step = state.steps_done
        state.losses.record(stepper(x, y, step))
        if arrived := state.losses.arrived():
            _, last_loss = arrived[-1]
        annealed = state.slots.targets.annealed(step)
        callbacks.step(epoch, state.losses.recorded, last_loss, annealed)
        state.seconds = time.perf_counter() - began
        checkpointer.after_step(state)
    check_finite(run, state)


def validate(
    run: Run, state: TrainState, callbacks: Callbacks, freezer: ModelFreezer
) -> dict[Weights, Counts]:
    """Measure clean and PGD accuracy of each set of weights on the split that selects the best.

    The attack is that of training, with noise drawn per image, the same in every epoch. It searches
    in TF32 where attacks do by default, unless the run trains in float32. The form of the networks
    that is attacked is that of `freezer`.

    Raises:
        AdrbenchError: where the logits on clean images are not finite.

    """
    threat = run.config.threat_model()
    attack = AttackConfig(
        suite=f"pgd-{run.config.steps}",
        alpha=run.config.alpha,
        batch_size=VALIDATION_BATCH,
        seed=run.config.seed,
    )
    suite = build_suite(attack, threat, run.dataset.num_classes)
    full = run.arithmetic == FLOAT32
    searched = choose_for_search(FLOAT32 if full else AUTO, run.context.device)
    counts: dict[Weights, Counts] = {}
    for weights, model in state.models().items():
        try:
            with run.calling_user_code(f"in the validation of the {weights} weights"):
                outcome = evaluate(
                    model,
                    selection_images(run.config, run.dataset),
                    suite,
                    threat,
                    label=f"the {weights} weights",
                    check_reliability=False,
                    batch_size=attack.batch_size,
                    callbacks=ProgressCallbacks(on_batch=report_validation(callbacks, weights)),
                    process_group=run.context.process_group,
                    freezer=freezer,
                    searched=searched,
                )
        except NonFiniteLogitsError as error:
            where = explain(run, state.steps_done - 1)
            raise AdrbenchError(f"{error.finding} after {where}") from error
        for text in outcome.warnings:
            logger.warning(f"validation of the {weights} weights: {text}")
        counts[weights] = Counts(
            clean_correct=outcome.clean_correct, robust_correct=outcome.robust_correct
        )
    return counts


def report_validation(callbacks: Callbacks, weights: Weights) -> OnBatch:
    """Return a callback that passes the progress of a validation on to `callbacks`."""
    return lambda stage, done, total, survivors: callbacks.validation(weights, stage, done, total)
