"""Studies as jobs: commands to run, what each waits for, and whether it was done before.

A job is done when the results hold the records that it would write, made with its settings.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from adrbench.checkpoints.format import LAST
from adrbench.config.declare import flag
from adrbench.config.method import WEIGHTS, parse_method
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import TrainConfig
from adrbench.errors import RecordError
from adrbench.report.run_settings import fingerprint, read_config
from adrbench.results.records import AttackRecord, Record, TrainRecord, read_records
from benchmarks.reproduce.cut import place
from benchmarks.reproduce.kept import AVERAGE
from benchmarks.reproduce.matrix import Attack, Settings, Study, Training

#: Where, beside the records of a study, the kept weights lie.
WEIGHTS_DIR = "weights"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where results, runs and data lie, and the device that computes."""

    out: Path
    runs: Path
    data_dir: Path
    device: str


class Book:
    """The records in a results directory, by run."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.trainings: dict[str, TrainRecord] = {}
        self.attacks: dict[str, list[AttackRecord]] = {}
        for record in records:
            if isinstance(record, TrainRecord):
                self.trainings[record.run] = record
            else:
                self.attacks.setdefault(record.run, []).append(record)


def read_book(directory: Path) -> Book:
    """Return the records in `directory`, which need not exist."""
    try:
        return Book(read_records(directory))
    except RecordError:
        return Book()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command: `arguments` are Python's, `needs` the name of the job that it waits for.

    Jobs of one `kind` take about as long. `took` returns the seconds that it took as the records
    have it, None for what is not done. `makes` is a file that jobs which wait for it read.
    """

    name: str
    kind: str
    arguments: tuple[str, ...]
    needs: str = ""
    makes: Path | None = None
    took: Callable[[Book], float | None]


def make_jobs(study: Study, places: Places) -> Iterator[Job]:
    """Yield the jobs of `study`, each after the one that it waits for."""
    for training in study.trainings:
        train = training_job(training, places)
        yield train
        for attack in study.attacks:
            if attack.concerns(training):
                yield attack_job(training, attack, places, needs=train)
        if training in study.kept:
            yield from kept_jobs(training, study, places, needs=train)


def training_job(training: Training, places: Places) -> Job:
    """Return the job that makes a run."""
    return Job(
        name=f"train {training.run}",
        kind=f"{training.dataset} train {training.label} {training.method}",
        arguments=(
            *("-m", "adrbench", "train", place(training.dataset, places.data_dir)),
            *spell(training.all_settings),
            *("--name", training.run, "--out", str(places.runs), "--results", str(places.out)),
            *("--data-dir", str(places.data_dir), "--device", places.device),
        ),
        makes=places.runs / training.run / LAST,
        took=partial(training_took, training),
    )


def attack_job(training: Training, attack: Attack, places: Places, *, needs: Job) -> Job:
    """Return the job that attacks checkpoints of a run."""
    averages = parse_method(training.method).has_average
    weights = (attack.weights,) if attack.weights else WEIGHTS if averages else WEIGHTS[:1]
    target = places.runs / training.run
    if len(attack.checkpoints) == 1:
        target /= f"{attack.checkpoints[0]}.pt"
    chosen = "both" if len(weights) > 1 else weights[0]
    count = len(weights) * len(attack.checkpoints)
    return Job(
        name=f"{describe(attack)} {training.run}",
        kind=f"{training.dataset} {attack.suite} {attack.n} {count}",
        arguments=attack_arguments(target, attack, places, chosen),
        needs=needs.name,
        took=partial(attack_took, training.run, training, attack, weights),
    )


def kept_jobs(training: Training, study: Study, places: Places, *, needs: Job) -> Iterator[Job]:
    """Yield the jobs that keep the averaged weights of a run at its best epoch and attack them."""
    file = places.out / WEIGHTS_DIR / f"{training.kept_as}.pt"
    keep = Job(
        name=f"keep {training.kept_as}",
        kind="keep",
        arguments=(
            *("-m", "benchmarks.reproduce.kept", str(places.runs / training.run), str(file)),
        ),
        needs=needs.name,
        makes=file,
        took=partial(keeping_took, training, file),
    )
    yield keep
    attack = replace(study.attacks[0], checkpoints=("best",))
    yield Job(
        name=f"{describe(attack)} {training.kept_as}",
        kind=f"{training.dataset} {attack.suite} {attack.n} 1",
        arguments=attack_arguments(file, attack, places, AVERAGE),
        needs=keep.name,
        took=partial(attack_took, training.kept_as, training, attack, (AVERAGE,)),
    )


def attack_arguments(target: Path, attack: Attack, places: Places, weights: str) -> tuple[str, ...]:
    """Return Python's arguments for an attack on `target`."""
    return (
        *("-m", "adrbench", "attack", str(target), "--weights", weights),
        *spell({"suite": attack.suite, "n": attack.n}),
        *("--out", str(places.out), "--data-dir", str(places.data_dir)),
        *("--device", places.device),
    )


def describe(attack: Attack) -> str:
    """Return an attack in words."""
    images = "" if attack.n is None else f" on {attack.n:,}"
    return f"{attack.suite}{images} {attack.weights or ''}".rstrip()


def spell(settings: Settings) -> Iterator[str]:
    """Yield settings as flags of the command line, `--no-` where False, none where None."""
    for name, value in settings.items():
        if isinstance(value, bool):
            yield flag(name) if value else flag(f"no_{name}")
        elif value is not None:
            yield flag(name)
            yield ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def training_took(training: Training, book: Book) -> float | None:
    """Return the seconds of a run; None without a record, or with one of other settings."""
    found = find_training(training, book)
    return found[0].seconds if found else None


def keeping_took(training: Training, file: Path, book: Book) -> float | None:
    """Return 0 if `file` is there to keep weights of a run that is done, None otherwise."""
    return 0.0 if file.exists() and find_training(training, book) else None


def find_training(training: Training, book: Book) -> tuple[TrainRecord, TrainConfig] | None:
    """Return the record and settings of a run, if `adrbench train` would train it so now."""
    record = book.trainings.get(training.run)
    config = record and read_config(record)
    if not record or not config:
        return None
    wanted = complete_settings(
        training,
        num_train=record.num_train + record.num_val,
        val_size=record.num_val,
    )
    return None if wanted.differences(config) else (record, config)


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


def attack_took(
    run: str, training: Training, attack: Attack, weights: Sequence[str], book: Book
) -> float | None:
    """Return the seconds of the evaluations of `run`, None unless every one is there.

    They have to be of weights trained like the run of `training` is now, within the same radius.
    """
    found = find_training(training, book)
    if not found:
        return None
    trained, config = found
    sha256 = fingerprint(config, trained)
    wanted = {(checkpoint, own) for checkpoint in attack.checkpoints for own in weights}
    seconds: dict[tuple[str, str], float] = {}
    for record in book.attacks.get(run, ()):
        threat = record.threat_model
        is_same = (
            record.training_sha256 == sha256
            and (threat.norm, threat.eps) == (config.norm, config.eps)
            and (record.suite, record.n) == (attack.suite, attack.n or record.num_test)
        )
        if is_same and (record.selection, record.weights) in wanted:
            seconds[record.selection, record.weights] = record.seconds
    return sum(seconds.values()) if len(seconds) == len(wanted) else None
