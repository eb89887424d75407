"""What the commands do between the parsed command line and the work: put the pieces together."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from adrbench import attacking, training
from adrbench.attacks.suites import SUITES
from adrbench.baselines import read_paper, read_robustbench
from adrbench.config import METHOD_SETTINGS, AttackConfig, TrainConfig, flag, parse_fraction
from adrbench.datasets import DATASETS, Dataset, dataset_name, load_dataset
from adrbench.devices import choose_device
from adrbench.display import AttackDisplay, TrainingDisplay
from adrbench.errors import UsageError, unknown_name
from adrbench.models import ACTIVATIONS, ARCHITECTURES, canonical_arch
from adrbench.presets import find_preset
from adrbench.records import AttackRecord, TrainRecord, check_writable, read_record, write_record
from adrbench.report.lines import format_eps
from adrbench.threat import NORMS
from adrbench.tokens import TOKENS, parse_method

Say = Callable[[str], None]
Given = Mapping[str, Any]


def train_command(given: Given, say: Say) -> None:
    """Train as the flags `given` say (None for those that were not), and record the run."""
    dataset_name(given["dataset"])
    config, dataset = build_train_config(given, say)
    name = given["name"] or training.run_name(config, dataset.name)
    if Path(name).name != name:
        raise UsageError(f"--name is {name!r}: give a plain name, and the place with --out.")
    directory: Path = given["out"] / name
    path: Path = given["results"] / f"train-{name}.json"
    device = choose_device(given["device"])
    check_writable(given["results"])
    console = Console(stderr=True)
    console.print(f"{name}: {config.preset}", style="dim", highlight=False, soft_wrap=True)
    with TrainingDisplay(console) as display:
        record = training.train(
            config, dataset, directory, device=device, force=given["force"], reporter=display
        )
    if display.started or not path.exists():
        write_record(path, record)
    else:
        say(f"{directory} was finished before: --force trains it again.")
    typer.echo(summarise_training(record, directory))


def build_train_config(given: Given, say: Say) -> tuple[TrainConfig, Dataset]:
    """Load the data set, and complete the given settings from the preset that fits the run."""
    method = parse_method(given["method"])
    arch = canonical_arch(
        given["arch"] or ("small-cnn" if given["dataset"] == "digits" else "resnet18")
    )
    if given["activation"] not in ACTIVATIONS:
        raise unknown_name("activation", given["activation"], ACTIVATIONS)
    if given["norm"] not in NORMS:
        raise unknown_name("norm", given["norm"], NORMS)
    settings = {key: value for key, value in given.items() if value is not None}
    settings |= parse_settings(settings)
    val_size = given["val_size"]
    if val_size is None and given["select"] == "test":
        val_size = 0
    dataset = load_dataset(
        given["dataset"], data_dir=given["data_dir"], val_size=val_size, seed=given["seed"]
    )
    preset = find_preset(
        dataset.name,
        arch,
        method,
        norm=given["norm"],
        num_train=len(dataset.train) + len(dataset.val),
    )
    settings |= {"arch": arch, "method": str(method), "val_size": len(dataset.val)}
    for name in METHOD_SETTINGS:
        if name in settings and name not in preset.values:
            say(f"{flag(name)} is ignored: method {method} does not use it.")
            del settings[name]
    known = set(TrainConfig.__dataclass_fields__)
    chosen = {key: value for key, value in settings.items() if key in known}
    return TrainConfig(**{**preset.values, **chosen}, preset=preset.source), dataset


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
        key = f"{weights}_robust_correct"
        rows = [row for row in record.history if key in row]
        if not rows:
            continue
        best, last = max(rows, key=lambda row: row[key]), rows[-1]
        figures = ", ".join(
            f"{name} {100 * row[key] / row['select_n']:.1f} % (epoch {row['epoch']})"
            for name, row in (("best", best), ("last", last))
        )
        split = {"val": "validation", "test": "test"}[best["select"]]
        lines.append(f"{weights}: PGD accuracy on the {split} part: {figures}")
    lines.append(f"trained in {record.seconds:,.0f} s; next: adrbench attack {directory}")
    return "\n".join(lines)


def attack_command(given: Given, say: Say) -> None:
    """Attack every target, or say which was done before and where its record lies."""
    device = choose_device(given["device"])
    request = attacking.Request(
        weights=given["weights"],
        dataset=given["dataset"],
        arch=given["arch"],
        activation=given["activation"],
        normalize=given["normalize"],
        norm=given["norm"],
        data_dir=given["data_dir"],
        zoo_dir=given["zoo_dir"],
    )
    jobs = [
        plan_attack(subject, given, say)
        for target in given["targets"]
        for subject in attacking.find_subjects(target, request, say)
    ]
    check_writable(given["out"])
    console = Console(stderr=True)
    records = []
    for job in jobs:
        if job.path.exists() and not given["force"]:
            say(f"{job.subject.label} {job.suite.name} was done before, see {job.path}.")
            records.append(read_record(job.path))
            continue
        with AttackDisplay(console, f"{job.subject.label}: {job.suite.name}") as display:
            records.append(attacking.run(job, device, display.batch))
    print_attacks([record for record in records if isinstance(record, AttackRecord)])


def plan_attack(subject: attacking.Subject, given: Given, say: Say) -> attacking.Job:
    """Return one evaluation as the flags ask for it."""
    eps = parse_fraction(given["eps"], "eps") if given["eps"] is not None else None
    alpha = parse_fraction(given["alpha"], "alpha") if given["alpha"] is not None else None
    config = AttackConfig(
        suite=given["suite"],
        threat_model=attacking.choose_threat(subject, given["norm"], eps),
        n=given["n"],
        alpha=alpha,
        restarts=given["restarts"],
        batch_size=given["batch_size"],
        seed=given["seed"],
    )
    return attacking.plan(subject, config, data_dir=given["data_dir"], out=given["out"], say=say)


def print_attacks(records: list[AttackRecord]) -> None:
    """Print one line per record to stdout, and its warnings to stderr."""
    table = plain_table("target", "weights", "suite", "n", "clean", "robust")
    for record in records:
        table.add_row(
            record.run if record.selection == "file" else f"{record.run} {record.selection}",
            record.weights,
            record.suite,
            f"{record.n:,}",
            f"{100 * record.clean_correct / record.n:.2f} %",
            f"{100 * record.robust_correct / record.n:.2f} %",
        )
    Console().print(table)
    for record in records:
        for warning in record.warnings:
            typer.echo(f"warning: {record.run} {record.suite}: {warning}", err=True)


def plain_table(*columns: str) -> Table:
    """Return an empty table in the style of this program, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        figures = column in ("n", "clean", "robust")
        table.add_column(
            column, justify="right" if figures else "left", no_wrap=figures, overflow="fold"
        )
    return table


def list_command(what: str | None) -> None:
    """Print what exists of one kind, or of all."""
    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "datasets": list_datasets,
        "archs": lambda: {name: arch.explanation for name, arch in ARCHITECTURES.items()},
        "methods": lambda: {token: f"{slot}: {text}" for token, (slot, text) in TOKENS.items()},
        "suites": lambda: {name: text for name, (text, _) in SUITES.items()},
        "baselines": list_baselines,
    }
    if what is not None and what not in kinds:
        raise unknown_name("list", what, kinds)
    for kind in [what] if what else kinds:
        table = Table(title=kind, title_justify="left", box=None, show_header=False, pad_edge=False)
        for name, text in kinds[kind]().items():
            table.add_row(name, text)
        Console().print(table)


def list_baselines() -> dict[str, str]:
    """Return how many published rows each data set and threat model has."""
    counts = Counter((entry.dataset, entry.norm, entry.eps) for entry in read_robustbench())
    listed = {
        f"robustbench {dataset} {norm} {format_eps(eps)}": f"{count} models of the leaderboard"
        for (dataset, norm, eps), count in sorted(counts.items())
    }
    papers = Counter(row.dataset for row in read_paper())
    return listed | {f"adr paper {name}": f"{count} rows" for name, count in papers.items()}


def list_datasets() -> dict[str, str]:
    """Return the table's data sets and the two forms of one's own."""
    return {name: source.summary for name, source in DATASETS.items()} | {
        "FILE.npz": "x_train, y_train, x_test, y_test (x_val, y_val): uint8 NHWC or NHW images",
        "FOLDER": "train/CLASS/* and test/CLASS/* (or val/CLASS/*), images of one size",
    }
