"""Records to report on, as `adrbench attack` and `adrbench train` would have left them."""

import base64
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import adrbench
from adrbench.results.records import AttackRecord, Software, Stage, Threat, TrainRecord, Verdicts

SOFTWARE = Software(versions={"adrbench": adrbench.__version__}, commit=None, dirty=None)
NUM_TEST = 10_000
EPOCHS = 200
DATASETS, ARCHS = ("cifar10", "cifar100"), ("resnet18", "wrn-34-10")
METHODS = ("at", "trades", "adr", "adr+wa", "adr+awp", "trades+adr")
#: suite -> its stages.
SUITES = {"pgd-20": ("pgd-20",), "autoattack": ("apgd-ce", "apgd-t", "fab-t", "square")}
PARAMETERS: dict[str, dict[str, Any]] = {
    "pgd-20": {"steps": 20, "alpha": 2 / 255, "restarts": 1},
    "autoattack": {"version": "standard", "package": "pyautoattack 0.2.0", "num_targets": 9},
}


def write_records(directory: Path, count: int) -> None:
    """Write `count` records into `directory`: the evaluations of run after run.

    Every other run left the record of its training too, with a line for each epoch.
    """
    for number, content in enumerate(itertools.islice(generate(), count)):
        (directory / f"record-{number:06}.json").write_text(json.dumps(content, indent=1), "utf-8")


def generate() -> Iterator[dict[str, Any]]:
    """Yield records as JSON values, without an end."""
    draws = random.Random(0)
    for seed in itertools.count():
        for run in itertools.product(DATASETS, ARCHS, METHODS):
            model = describe_model(*run, seed)
            if seed % 2 == 0:
                yield asdict(make_training(model))
            for selection in ("best", "last"):
                weights = describe_weights(selection, draws)
                for suite, stages in SUITES.items():
                    yield asdict(make_attack(model | weights, suite, stages, draws))


def describe_model(dataset: str, arch: str, method: str, seed: int) -> dict[str, Any]:
    """Return what every record of a run says of it."""
    return {
        "dataset": dataset,
        "arch": arch,
        "method": method,
        "seed": seed,
        "run": f"{dataset}-{arch}-{method}-seed{seed}",
        "software": SOFTWARE,
        "device": "cpu",
        "precision": "float32",
    }


def describe_weights(selection: str, draws: random.Random) -> dict[str, Any]:
    """Return what every evaluation of a checkpoint says of it, its figures drawn at random."""
    fingerprint = draws.randbytes(32).hex()
    return {
        "selection": selection,
        "epoch": EPOCHS if selection == "last" else draws.randint(100, EPOCHS),
        "clean_correct": draws.randint(8_000, 8_600),
        "checkpoint_sha256": fingerprint,
        "weights_sha256": fingerprint,
    }


def make_attack(
    model: dict[str, Any], suite: str, stages: tuple[str, ...], draws: random.Random
) -> AttackRecord:
    """Return an evaluation of the whole test set, with verdicts drawn at random."""
    robust = draws.randint(4_500, 5_200)
    return AttackRecord(
        **model,
        split="test",
        n=NUM_TEST,
        num_test=NUM_TEST,
        num_classes=100 if model["dataset"] == "cifar100" else 10,
        published_test_set=True,
        data_sha256="d" * 64,
        activation="relu",
        weights="average" if "wa" in model["method"].split("+") else "student",
        selected_on="val",
        training_sha256="e" * 64,
        threat_model=Threat(norm="Linf", eps=8 / 255),
        suite=suite,
        parameters=PARAMETERS[suite],
        attack_seed=0,
        batch_size=250,
        robust_correct=robust,
        stages=tuple(Stage(name=name, survivors=robust, seconds=60.0) for name in stages),
        verdicts=Verdicts(clean=draw_verdicts(draws), robust=draw_verdicts(draws)),
        warnings=(),
        created="2026-01-02T03:04:05+00:00",
        seconds=240.0,
    )


def draw_verdicts(draws: random.Random) -> str:
    """Return packed verdicts of the whole test set, every image right or wrong by chance."""
    return base64.b64encode(draws.randbytes(NUM_TEST // 8)).decode("ascii")


def make_training(model: dict[str, Any]) -> TrainRecord:
    """Return a finished run."""
    row = {"train_loss": 1.5, "lr": 0.1, "select": "val", "select_n": 1_000, "criterion": "robust"}
    row |= {"student_clean_correct": 820, "student_robust_correct": 510, "seconds": 40.0}
    return TrainRecord(
        **model,
        config={"epochs": EPOCHS, "batch_size": 128},
        history=tuple({"epoch": epoch, **row} for epoch in range(1, EPOCHS + 1)),
        num_train=49_000,
        num_val=1_000,
        seconds=8_000.0,
        images_per_second=1_225.0,
        created="2026-01-02T01:00:00+00:00",
    )
