"""Studies as jobs: commands to run, what each waits for, and whether it was done before.

A job is done when the results hold the records that it would write, made with its settings.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adrbench.config import flag
from adrbench.errors import RecordError
from adrbench.records import AttackRecord, Record, TrainRecord, read_records
from adrbench.report.settings import read_config
from adrbench.tokens import WEIGHTS, parse_method
from benchmarks.reproduce.cut import place
from benchmarks.reproduce.kept import AVERAGE
from benchmarks.reproduce.matrix import Attack, Settings, Study, Training

#: Where in a results directory the kept weights lie.
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
    have it, None for what is not done.
    """

    name: str
    kind: str
    arguments: tuple[str, ...]
    needs: str = ""
    took: Callable[[Book], float | None]


def make_jobs(study: Study, places: Places) -> Iterator[Job]:
    """Yield the jobs of `study`, each after those that it waits for."""
    for training in study.trainings:
        train = training_job(training, places)
        yield train
        for attack in study.attacks:
            yield attack_job(training, attack, places, needs=train)
        if training in study.kept:
            keep = keeping_job(training, places, needs=train)
            yield keep
            for attack in study.attacks:
                yield kept_job(training, attack, places, needs=keep)


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
        took=partial(training_took, training),
    )


def attack_job(training: Training, attack: Attack, places: Places, *, needs: Job) -> Job:
    """Return the job that attacks the best and the last weights of a run, all there are."""
    averages = parse_method(training.method).averages
    weights = WEIGHTS if averages else WEIGHTS[:1]
    target = places.runs / training.run
    return Job(
        name=f"{describe(attack)} {training.run}",
        kind=f"{training.dataset} {describe(attack)} {len(weights)}",
        arguments=attack_arguments(target, attack, places, "both" if averages else "student"),
        needs=needs.name,
        took=partial(attack_took, training.run, attack, ("best", "last"), weights),
    )


def keeping_job(training: Training, places: Places, *, needs: Job) -> Job:
    """Return the job that keeps the averaged weights of a run at its best epoch."""
    file = places.out / WEIGHTS_DIR / f"{training.kept_as}.pt"
    return Job(
        name=f"keep {training.kept_as}",
        kind="keep",
        arguments=(
            *("-m", "benchmarks.reproduce.kept", str(places.runs / training.run), str(file)),
        ),
        needs=needs.name,
        took=lambda book: 0.0 if file.exists() else None,
    )


def kept_job(training: Training, attack: Attack, places: Places, *, needs: Job) -> Job:
    """Return the job that attacks kept weights."""
    file = places.out / WEIGHTS_DIR / f"{training.kept_as}.pt"
    return Job(
        name=f"{describe(attack)} {training.kept_as}",
        kind=f"{training.dataset} {describe(attack)} kept",
        arguments=attack_arguments(file, attack, places, AVERAGE),
        needs=needs.name,
        took=partial(attack_took, training.kept_as, attack, ("best",), (AVERAGE,)),
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
    return attack.suite if attack.n is None else f"{attack.suite} on {attack.n:,}"


def spell(settings: Settings) -> Iterator[str]:
    """Yield settings as flags of the command line, without those that are None."""
    for name, value in settings.items():
        if value is not None:
            yield flag(name)
            yield ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def training_took(training: Training, book: Book) -> float | None:
    """Return the seconds of a run whose record has all of its settings; None without one."""
    record = book.trainings.get(training.run)
    config = record and read_config(record)
    if not record or not config:
        return None
    wanted = training.all_settings
    is_same = all(getattr(config, name) == value for name, value in wanted.items())
    return record.seconds if is_same else None


def attack_took(
    run: str, attack: Attack, selections: Sequence[str], weights: Sequence[str], book: Book
) -> float | None:
    """Return the seconds of the evaluations of a run, None unless every one is there."""
    seconds = {
        (record.selection, record.weights): record.seconds
        for record in book.attacks.get(run, ())
        if record.suite == attack.suite and record.n == (attack.n or record.num_test)
    }
    wanted = {(selection, own) for selection in selections for own in weights}
    return sum(seconds.values()) if wanted <= seconds.keys() else None
