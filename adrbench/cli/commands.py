"""What the commands do between the parsed command line and the work: put the pieces together."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

from adrbench.attacks.suites import build_suite
from adrbench.cli.display import AttackDisplay, TrainingDisplay, plain_table, print_table
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import (
    METHOD_SETTINGS,
    AttackConfig,
    TrainConfig,
    flag,
    method_settings,
    parse_fraction,
)
from adrbench.config.threat import NORMS, ThreatModel
from adrbench.data import Dataset, dataset_name, load_dataset, load_split
from adrbench.errors import AdrbenchError, RecordError, UsageError, unknown_name
from adrbench.evaluation import jobs as attacking
from adrbench.evaluation.targets import TargetOptions, resolve_targets
from adrbench.models.architectures import ACTIVATIONS, canonical_arch
from adrbench.report.grouping import format_eps
from adrbench.results.records import AttackRecord, TrainRecord, read_record
from adrbench.runtime.devices import choose_device
from adrbench.runtime.files import check_writable
from adrbench.runtime.launch import is_restarted, joined_process_group
from adrbench.runtime.process_group import ProcessGroup, same_on_all_ranks
from adrbench.runtime.signals import Interrupted, StopRequest
from adrbench.runtime.torchrun import local_rank
from adrbench.training import loop as training
from adrbench.training import resuming, saving
from adrbench.training import state as runs

logger = logging.getLogger(__name__)

#: More classes than any attack of a suite needs, to build a suite before the data are known.
MANY_CLASSES = 1000

Given = Mapping[str, Any]


def train_command(given: Given) -> None:
    """Train as the flags `given` say (None for those that were not), and record the run."""
    device = choose_device(given["device"], local_rank())
    stop = StopRequest()
    with joined_process_group(device) as process_group, stop.handling_signals():
        train_in(process_group, given, device, stop)


def train_in(
    process_group: ProcessGroup, given: Given, device: torch.device, stop: StopRequest
) -> None:
    """Train on this rank of `process_group`; rank 0 prints and writes."""
    if not given["save_minutes"] >= 0:
        raise UsageError(
            f"--save-minutes is {given['save_minutes']:g}: give a number of minutes, at least 0."
        )
    with first_before_others(process_group):
        config, dataset = build_train_config(given)
    name = given["name"] or runs.run_name(config, dataset.name)
    directory: Path = given["out"] / name
    path: Path = given["results"] / f"train-{name}.json"
    force = given["force"] and not is_restarted(process_group)
    if process_group.is_rank_zero and (force or not resuming.is_finished(directory, config)):
        for place in (directory, path.parent):
            check_writable(place)
    with (
        TrainingDisplay(
            Console(stderr=True, quiet=not process_group.is_rank_zero), name
        ) as display,
        enough_memory(config.batch_size),
    ):
        record = training.train(
            config,
            dataset,
            directory,
            device=device,
            force=force,
            callbacks=display,
            save_seconds=60 * given["save_minutes"],
            stop=stop,
            process_group=process_group,
            record=path,
        )
    if not process_group.is_rank_zero:
        return
    if not display.started:
        logger.info(f"{directory} was finished before, see {path}: --force trains it again.")
    typer.echo(summarise_training(record, directory))


def build_train_config(given: Given) -> tuple[TrainConfig, Dataset]:
    """Complete the given settings from the preset that fits the run, and load its data set.

    Settings are checked before anything is read or downloaded, and completed once more when the
    number of images is known.
    """
    check_run_name(given["name"])
    dataset, method = given["dataset"], parse_method(given["method"])
    settings = {key: value for key, value in given.items() if value is not None}
    settings |= parse_settings(settings)
    default_arch = "small-cnn" if dataset == "digits" else "resnet18"
    settings["arch"] = canonical_arch(settings.get("arch", default_arch))
    settings["method"] = str(method)
    for name, valid in (("activation", ACTIVATIONS), ("norm", NORMS)):
        if settings[name] not in valid:
            raise unknown_name(name, settings[name], valid)
    ignored = [
        name for name in METHOD_SETTINGS if name in settings and name not in method_settings(method)
    ]
    for name in ignored:
        del settings[name]
    val_size = settings.get("val_size", 0 if settings["select"] == "test" else None)
    draft = complete_settings(
        settings, dataset_name(dataset), num_train=0, val_size=1 if val_size is None else val_size
    )
    for name in ignored:
        logger.info(f"{flag(name)} is ignored: method {method} does not use it.")
    loaded = load_dataset(dataset, data_dir=given["data_dir"], val_size=val_size, seed=draft.seed)
    num_train, num_val = len(loaded.train), len(loaded.val)
    config = complete_settings(
        settings, loaded.name, num_train=num_train + num_val, val_size=num_val
    )
    return config, loaded


def complete_settings(
    settings: Given, dataset: str, *, num_train: int, val_size: int
) -> TrainConfig:
    """Return the configuration that `settings` and, for what they leave open, a preset make."""
    preset = find_preset(
        dataset,
        settings["arch"],
        parse_method(settings["method"]),
        norm=settings.get("norm", TrainConfig.norm),
        activation=settings.get("activation", TrainConfig.activation),
        num_train=num_train,
    )
    known = set(TrainConfig.__dataclass_fields__)
    chosen = {key: value for key, value in settings.items() if key in known}
    given = [flag(name) for name in preset.values if name in chosen]
    source = "; ".join([preset.source, *([f"given: {', '.join(given)}"] if given else [])])
    return TrainConfig(**{**preset.values, **chosen, "val_size": val_size}, preset=source)


def check_run_name(name: str | None) -> None:
    """Raise UsageError unless `name` can be that of a directory within another."""
    if name is not None and (Path(name).name != name or name == ".."):
        raise UsageError(f"--name is {name!r}: give a plain name, and the place with --out.")


@contextmanager
def first_before_others(process_group: ProcessGroup) -> Iterator[None]:
    """Let the first process go ahead, such as to download what the others then find."""
    if not process_group.is_rank_zero:
        process_group.barrier()
    yield
    if process_group.is_rank_zero:
        process_group.barrier()


#: How PyTorch's allocator of host memory begins to say that there is no more.
NO_HOST_MEMORY = "DefaultCPUAllocator: can't allocate memory"


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """Turn a lack of memory into what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_memory and NO_HOST_MEMORY not in str(error):
            raise
        instead = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --arch"
        raise AdrbenchError(
            f"there is not enough memory for a batch of {batch_size}: give {instead}, or another "
            "--device; what was saved before is kept."
        ) from error


def parse_settings(given: Given) -> dict[str, Any]:
    """Return the settings that the command line spells as text, as numbers."""
    parsed: dict[str, Any] = {
        name: parse_fraction(given[name], name) for name in ("eps", "alpha") if name in given
    }
    if "milestones" in given:
        parts = [part for part in given["milestones"].split(",") if part.strip()]
        parsed["milestones"] = tuple(parse_fraction(part, "milestones") for part in parts)
    return parsed


def summarise_training(record: TrainRecord, directory: Path) -> str:
    """Return what a finished run came to, and what to do next."""
    lines = []
    for weights in ("student", "average"):
        if f"{weights}_robust_correct" not in record.history[-1]:
            continue
        best, last = saving.best_row(record.history, weights), record.history[-1]
        criterion = best["criterion"]
        figures = ", ".join(
            f"{100 * row[f'{weights}_{criterion}_correct'] / row['select_n']:.1f} % "
            f"at the {name} epoch ({row['epoch']})"
            for name, row in (("best", best), ("last", last))
        )
        split = {"val": "validation", "test": "test"}[best["select"]]
        accuracy = {"robust": "PGD accuracy", "clean": "clean accuracy"}[criterion]
        lines.append(f"{weights}: {split} {accuracy} {figures}")
    lines.append(f"trained in {record.seconds:,.0f} s; next: adrbench attack {directory}")
    return "\n".join(lines)


def attack_command(given: Given) -> None:
    """Attack every target, or say which was done before and where its record lies."""
    device = choose_device(given["device"], local_rank())
    with joined_process_group(device) as process_group, StopRequest().handling_signals():
        attack_in(process_group, given, device)


def attack_in(process_group: ProcessGroup, given: Given, device: torch.device) -> None:
    """Attack on this rank of `process_group`; rank 0 prints and writes."""
    fractions = parse_settings({key: value for key, value in given.items() if value is not None})
    config = AttackConfig(
        suite=given["suite"],
        threat_model=ThreatModel(eps=1),
        n=given["n"],
        alpha=fractions.get("alpha"),
        restarts=given["restarts"],
        batch_size=given["batch_size"],
        seed=given["seed"],
    )
    build_suite(config, MANY_CLASSES)
    names = ("weights", "dataset", "arch", "activation", "normalize", "norm")
    options = TargetOptions(
        **{name: given[name] for name in names},
        eps=fractions.get("eps"),
        data_dir=given["data_dir"],
        zoo_dir=given["zoo_dir"],
    )
    load_test = cache(partial(load_split, split="test", data_dir=given["data_dir"]))
    jobs = []
    with first_before_others(process_group):
        for target in given["targets"]:
            for target_model in resolve_targets(target, options):
                test, info = load_test(target_model.dataset)
                threatened = replace(config, threat_model=target_model.threat)
                jobs.append(
                    attacking.plan(target_model, threatened, test=test, info=info, out=given["out"])
                )
    if not same_on_all_ranks(process_group, [job.fingerprint for job in jobs]):
        raise AdrbenchError(
            "the processes found different weights or images: give files that all machines share, "
            "and that nobody writes meanwhile."
        )
    force = given["force"] and not is_restarted(process_group)
    records: list[AttackRecord] = []
    try:
        for job in jobs:
            records.append(attack_once(job, device, force=force, process_group=process_group))
    finally:
        if records and process_group.is_rank_zero:
            print_attacks(records)


def attack_once(
    job: attacking.Job, device: torch.device, *, force: bool, process_group: ProcessGroup
) -> AttackRecord:
    """Return the record of an evaluation, made now unless it was made before."""
    label = f"{job.target_model.label} {job.suite.name}"
    if process_group.broadcast(not force and attacking.is_done(job)):
        record = read_finished(job.path)
        logger.info(f"{label} was done before, see {job.path}: --force does it again.")
        return record
    if process_group.is_rank_zero:
        check_writable(job.path.parent)
    console = Console(stderr=True, quiet=not process_group.is_rank_zero)
    try:
        with AttackDisplay(console, label) as display, enough_memory(job.config.batch_size):
            return attacking.run(
                job, device, display.batch, process_group=process_group, force=force
            )
    except Interrupted as interruption:
        where = f"{label} is kept up to the last batch that was finished"
        raise Interrupted(interruption.number, where) from None


def read_finished(path: Path) -> AttackRecord:
    """Read the record of a finished attack; RecordError says how to replace a broken one."""
    try:
        record = read_record(path)
        if isinstance(record, AttackRecord):
            return record
        reason = f"{path} is not the record of an attack"
    except RecordError as error:
        reason = str(error).rstrip(".")
    raise RecordError(f"{reason}: give --force to make it again.")


def print_attacks(records: Sequence[AttackRecord]) -> None:
    """Print one line per record to stdout, and its warnings to stderr."""
    table = plain_table("target", "weights", "threat", "suite", "n", "clean", "robust")
    for record in records:
        table.add_row(
            record.run if record.selection == "file" else f"{record.run} {record.selection}",
            record.weights,
            f"{record.threat_model.norm} {format_eps(record.threat_model.eps)}",
            record.suite,
            f"{record.n:,}",
            f"{100 * record.clean_correct / record.n:.2f} %",
            f"{100 * record.robust_correct / record.n:.2f} %",
        )
    print_table(table)
    for record in records:
        for warning in record.warnings:
            typer.echo(f"warning: {record.run} {record.suite}: {warning}", err=True)
