"""Synthetic records for `adrbench report`, shaped like those of `adrbench attack` and `train`."""

import itertools
import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import adrbench
from adrbench.config.threat import ThreatModel
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    Software,
    StageResult,
    TrainRecord,
)

SOFTWARE = Software(versions={"adrbench": adrbench.__version__}, commit=None, dirty=None)
NUM_TEST, EPOCHS = 10_000, 200
DATASETS, ARCHS = ("cifar10", "cifar100"), ("resnet18", "wrn-34-10")
#: Methods with the weights that their evaluations are of.
METHODS = {
    "at": "student",
    "trades": "student",
    "adr": "student",
    "adr+wa": "average",
    "adr+awp": "student",
    "trades+adr": "student",
}
#: Suites with their stages and parameters.
SUITES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "pgd-20": (("pgd-20",), {"steps": 20, "alpha": 2 / 255, "restarts": 1}),
    "autoattack": (
        ("apgd-ce", "apgd-t", "fab-t", "square"),
        {"version": "standard", "package": "pyautoattack 0.2.0", "num_targets": 9},
    ),
}
#: What all evaluations have in common, and all trainings.
ATTACK: dict[str, Any] = {
    "split": "test",
    "n": NUM_TEST,
    "num_test": NUM_TEST,
    "published_test_set": True,
    "data_sha256": "d" * 64,
    "activation": "relu",
    "selected_on": "val",
    "training_sha256": "e" * 64,
    "threat_model": ThreatModel(norm="Linf", eps=8 / 255),
    "attack_seed": 0,
    "batch_size": 250,
    "warnings": (),
    "created": "2026-01-02T03:04:05+00:00",
    "seconds": 240.0,
}
EPOCH = {"train_loss": 1.5, "lr": 0.1, "select": "val", "select_n": 1_000, "criterion": "robust"}
EPOCH |= {"student_clean_correct": 820, "student_robust_correct": 510, "seconds": 40.0}
TRAINING: dict[str, Any] = {
    "config": {"epochs": EPOCHS, "batch_size": 128},
    "history": tuple({"epoch": epoch, **EPOCH} for epoch in range(1, EPOCHS + 1)),
    "num_train": 49_000,
    "num_val": 1_000,
    "seconds": 8_000.0,
    "images_per_second": 1_225.0,
    "created": "2026-01-02T01:00:00+00:00",
}


def write_records(directory: Path, count: int) -> None:
    """Write `count` records into `directory`."""
    for number, record in enumerate(itertools.islice(generate_records(), count)):
        path = directory / f"record-{number:06}.json"
        path.write_text(json.dumps(asdict(record), indent=1), "utf-8")


def generate_records() -> Iterator[AttackRecord | TrainRecord]:
    """Yield the evaluations of one run after another, and the training of every other run."""
    rng = random.Random(0)
    for seed in itertools.count():
        for dataset, arch, method in itertools.product(DATASETS, ARCHS, METHODS):
            run: dict[str, Any] = {"dataset": dataset, "arch": arch, "method": method, "seed": seed}
            run |= {"run": f"{dataset}-{arch}-{method}-seed{seed}", "software": SOFTWARE}
            run |= {"device": "cpu", "precision": "float32"}
            if seed % 2 == 0:
                yield TrainRecord(**run, **TRAINING)
            for selection in ("best", "last"):
                yield from generate_attacks(run, selection, rng)


def generate_attacks(
    run: dict[str, Any], selection: str, rng: random.Random
) -> Iterator[AttackRecord]:
    """Yield an evaluation of a checkpoint by each suite, with random counts and outcomes."""
    sha256 = rng.randbytes(32).hex()
    checkpoint: dict[str, Any] = {
        "selection": selection,
        "epoch": EPOCHS if selection == "last" else rng.randint(100, EPOCHS),
        "clean_correct": rng.randint(8_000, 8_600),
        "checkpoint_sha256": sha256,
        "weights_sha256": sha256,
        "weights": METHODS[run["method"]],
        "num_classes": 100 if run["dataset"] == "cifar100" else 10,
    }
    for suite, (stages, parameters) in SUITES.items():
        robust = rng.randint(4_500, 5_200)
        yield AttackRecord(
            **run,
            **checkpoint,
            **ATTACK,
            suite=suite,
            parameters=parameters,
            robust_correct=robust,
            stages=tuple(StageResult(name=name, survivors=robust, seconds=60.0) for name in stages),
            verdicts=Outcomes(clean=draw_outcomes(rng), robust=draw_outcomes(rng)),
        )


def draw_outcomes(rng: random.Random) -> str:
    """Return random per-example outcomes of the whole test set, packed."""
    return b64encode(rng.randbytes(NUM_TEST // 8)).decode("ascii")
