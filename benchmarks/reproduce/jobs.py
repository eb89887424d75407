"""The jobs of a study: commands, what each one needs, and whether it is finished.

A job is finished if the results hold the records that it would write, made with its settings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from adrbench.checkpoints.format import BEST, LAST
from adrbench.config.declare import flag
from adrbench.config.method import WEIGHTS, parse_method
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import TrainConfig
from adrbench.errors import RecordError
from adrbench.report.run_settings import fingerprint, read_config
from adrbench.results.inspection import InspectRecord
from adrbench.results.records import AttackRecord, TrainRecord, read_records
from adrbench.training.automatic import adopt
from benchmarks.reproduce.keep_weights import AVERAGE
from benchmarks.reproduce.matrix import Attack, Settings, Study, Training
from benchmarks.reproduce.subsets import find_dataset

#: The directory of kept weights, beside the records of a study.
WEIGHTS_DIR = "weights"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The directories of results, runs and data, and the device to compute on."""

    out: Path
    runs: Path
    data_dir: Path
    device: str


@dataclass(frozen=True, kw_only=True)
class RecordIndex:
    """The records in a results directory by run."""

    trainings: dict[str, TrainRecord] = field(default_factory=dict)
    attacks: dict[str, list[AttackRecord]] = field(default_factory=dict)
    inspections: dict[str, InspectRecord] = field(default_factory=dict)


def read_index(directory: Path) -> RecordIndex:
    """Return the records in `directory`, which need not exist."""
    index = RecordIndex()
    try:
        records = read_records(directory)
    except RecordError:
        return index
    for record in records:
        if isinstance(record, TrainRecord):
            index.trainings[record.run] = record
        elif isinstance(record, AttackRecord):
            index.attacks.setdefault(record.run, []).append(record)
        else:
            index.inspections[record.run] = record
    return index


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command: `arguments` for Python, and the name of the job that it `needs`, if any.

    Jobs of one `kind` take about as long. `find_seconds` returns the seconds that the job took
    according to the records, or None if it is not finished. `output` is a file that dependent jobs
    read; `again` are further arguments that make it again after it was lost.
    """

    name: str
    kind: str
    arguments: tuple[str, ...]
    needs: str = ""
    output: Path | None = None
    again: tuple[str, ...] = ()
    find_seconds: Callable[[RecordIndex], float | None]


def make_jobs(study: Study, workspace: Workspace) -> Iterator[Job]:
    """Yield the jobs of `study`, each after the one that it needs."""
    for training in study.trainings:
        train = make_training_job(training, workspace)
        yield train
        for attack in study.attacks:
            if attack.applies_to(training):
                yield make_attack_job(training, attack, workspace, needs=train)
        if training in study.kept:
            yield from make_kept_jobs(training, study, workspace, needs=train)
        if training in study.inspected:
            yield make_inspect_job(training, workspace, needs=train)


def make_training_job(training: Training, workspace: Workspace) -> Job:
    """Return the job that trains a run."""

    def find_seconds(index: RecordIndex) -> float | None:
        found = find_training(training, index)
        return found[0].seconds if found else None

    return Job(
        name=f"train {training.run}",
        kind=f"{training.dataset} train {training.label} {training.method}",
        arguments=(
            *("-m", "adrbench", "train", find_dataset(training.dataset, workspace.data_dir)),
            *make_flags(training.all_settings),
            *("--name", training.run, "--out", str(workspace.runs)),
            *("--results", str(workspace.out), "--data-dir", str(workspace.data_dir)),
            *("--device", workspace.device),
        ),
        output=workspace.runs / training.run / LAST,
        again=("--force",),
        find_seconds=find_seconds,
    )


def make_attack_job(training: Training, attack: Attack, workspace: Workspace, *, needs: Job) -> Job:
    """Return the job that attacks checkpoints of a run."""
    averages = parse_method(training.method).has_average
    weights = (attack.weights,) if attack.weights else WEIGHTS if averages else WEIGHTS[:1]
    target = workspace.runs / training.run
    if len(attack.checkpoints) == 1:
        target /= f"{attack.checkpoints[0]}.pt"
    chosen = "both" if len(weights) > 1 else weights[0]
    count = len(weights) * len(attack.checkpoints)
    return Job(
        name=f"{describe_attack(attack)} {training.run}",
        kind=f"{training.dataset} {attack.suite} {attack.n} {count}",
        arguments=make_attack_arguments(target, attack, workspace, chosen),
        needs=needs.name,
        find_seconds=partial(find_attack_seconds, training.run, training, attack, weights),
    )


def make_inspect_job(training: Training, workspace: Workspace, *, needs: Job) -> Job:
    """Return the job that records what ADR does to the labels of a run at its best epoch."""

    def find_seconds(index: RecordIndex) -> float | None:
        trained, record = find_training(training, index), index.inspections.get(training.run)
        if not trained or not record or len(record.schedule) != len(trained[0].history):
            return None
        return record.seconds

    return Job(
        name=f"inspect {training.run}",
        kind=f"{training.dataset} inspect",
        arguments=(
            *("-m", "adrbench", "inspect", str(workspace.runs / training.run / BEST)),
            *("--out", str(workspace.out), "--data-dir", str(workspace.data_dir)),
            *("--device", workspace.device),
        ),
        needs=needs.name,
        find_seconds=find_seconds,
    )


def make_kept_jobs(
    training: Training, study: Study, workspace: Workspace, *, needs: Job
) -> Iterator[Job]:
    """Yield the jobs that keep a run's best averaged weights and attack them."""
    file = workspace.out / WEIGHTS_DIR / f"{training.kept_run}.pt"
    run = workspace.runs / training.run
    keep = Job(
        name=f"keep {training.kept_run}",
        kind="keep",
        arguments=("-m", "benchmarks.reproduce.keep_weights", str(run), str(file)),
        needs=needs.name,
        output=file,
        find_seconds=lambda index: (
            0.0 if file.exists() and find_training(training, index) else None
        ),
    )
    yield keep
    attack = replace(study.attacks[0], checkpoints=("best",))
    yield Job(
        name=f"{describe_attack(attack)} {training.kept_run}",
        kind=f"{training.dataset} {attack.suite} {attack.n} 1",
        arguments=make_attack_arguments(file, attack, workspace, AVERAGE),
        needs=keep.name,
        find_seconds=partial(find_attack_seconds, training.kept_run, training, attack, (AVERAGE,)),
    )


def make_attack_arguments(
    target: Path, attack: Attack, workspace: Workspace, weights: str
) -> tuple[str, ...]:
    """Return Python's arguments for an attack on `target`."""
    return (
        *("-m", "adrbench", "attack", str(target), "--weights", weights),
        *make_flags({"suite": attack.suite, "n": attack.n}),
        *("--out", str(workspace.out), "--data-dir", str(workspace.data_dir)),
        *("--device", workspace.device),
        *(("--outputs",) if attack.outputs else ()),
    )


def describe_attack(attack: Attack) -> str:
    """Return an attack in words."""
    images = "" if attack.n is None else f" on {attack.n:,}"
    return f"{attack.suite}{images} {attack.weights or ''}".rstrip()


def make_flags(settings: Settings) -> Iterator[str]:
    """Yield settings as flags of the command line; False is `--no-NAME`, None is left out."""
    for name, value in settings.items():
        if isinstance(value, bool):
            yield flag(name) if value else flag(f"no_{name}")
        elif value is not None:
            yield flag(name)
            yield ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def find_training(training: Training, index: RecordIndex) -> tuple[TrainRecord, TrainConfig] | None:
    """Return the record and configuration of a run if `adrbench train` would train it so now.

    A setting that is "auto" counts as it was decided for the run.
    """
    record = index.trainings.get(training.run)
    config = record and read_config(record)
    if not record or not config:
        return None
    wanted = complete_settings(
        training,
        num_train=record.num_train + record.num_val,
        val_size=record.num_val,
    )
    return None if adopt(wanted, config).differences(config) else (record, config)


def complete_settings(training: Training, *, num_train: int, val_size: int) -> TrainConfig:
    """Return the configuration with which `adrbench train` would train a run now."""
    settings = dict(training.all_settings)
    request = TrainRequest(
        dataset=training.dataset,
        method=str(settings.pop("method")),
        arch=str(settings.pop("arch")),
        given=settings,
    )
    return request.resolve(training.dataset, num_train=num_train, val_size=val_size)


def find_attack_seconds(
    run: str, training: Training, attack: Attack, weights: Sequence[str], index: RecordIndex
) -> float | None:
    """Return the total seconds of the evaluations of `run`, or None unless all are present.

    Records count if their weights were trained with the present settings of `training`, and the
    threat model is that of the training.
    """
    found = find_training(training, index)
    if not found:
        return None
    trained, config = found
    sha256 = fingerprint(config, trained)
    wanted = {(checkpoint, own) for checkpoint in attack.checkpoints for own in weights}
    seconds: dict[tuple[str, str], float] = {}
    for record in index.attacks.get(run, ()):
        threat = record.threat_model
        is_same = (
            record.training_sha256 == sha256
            and (threat.norm, threat.eps) == (config.norm, config.eps)
            and (record.suite, record.n) == (attack.suite, attack.n or record.num_test)
        )
        has_outputs = record.outputs is not None or not attack.outputs
        if is_same and has_outputs and (record.selection, record.weights) in wanted:
            seconds[record.selection, record.weights] = record.seconds
    return sum(seconds.values()) if len(seconds) == len(wanted) else None
