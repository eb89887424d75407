"""Synthetic records for a report, as consistent as those of `adrbench attack` and `train`."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import adrbench
from adrbench.config.resolve import TrainRequest
from adrbench.config.settings import TrainConfig
from adrbench.config.threat import ThreatModel
from adrbench.results.history import Counts, HistoryRow
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    StageResult,
    TrainRecord,
    pack_outcomes,
)
from adrbench.results.software import Software

SOFTWARE = Software(versions={"adrbench": adrbench.__version__}, commit=None, dirty=None)
NUM_TEST, NUM_TRAIN, NUM_VAL = 10_000, 50_000, 1_000
#: Data sets with their numbers of classes.
DATASETS = {"cifar10": 10, "cifar100": 100}
ARCHS = ("resnet18", "wrn-34-10")
METHODS = ("at", "trades", "adr", "adr+wa", "adr+awp", "trades+adr")
#: Suites with their stages and parameters.
SUITES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "pgd-20": (("pgd-20",), {"steps": 20, "alpha": 2 / 255, "restarts": 1}),
    "autoattack": (
        ("apgd-ce", "apgd-t", "fab-t", "square"),
        {"version": "standard", "package": "pyautoattack 0.2.0", "num_targets": 9},
    ),
}
#: What all evaluations have in common.
ATTACK: dict[str, Any] = {
    "split": "test",
    "n": NUM_TEST,
    "num_test": NUM_TEST,
    "published_test_set": True,
    "activation": "relu",
    "selected_on": "val",
    "threat_model": ThreatModel(norm="Linf", eps=8 / 255),
    "attack_seed": 0,
    "batch_size": 250,
    "warnings": (),
    "created": "2026-01-02T03:04:05+00:00",
    "seconds": 240.0,
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run, whose seed is in `config`."""

    arch: str
    config: TrainConfig

    @property
    def weights(self) -> str:
        """The weights that the method deploys."""
        return "average" if self.config.method.endswith("+wa") else "student"

    def fields(self) -> dict[str, Any]:
        """Return what the records of its training and its evaluations have in common."""
        dataset, method, seed = self.config.dataset, self.config.method, self.config.seed
        return {
            "run": f"{dataset}-{self.arch}-{method}-seed{seed}",
            "dataset": dataset,
            "arch": self.arch,
            "method": method,
            "seed": seed,
            "training_images_sha256": hash_text(f"{dataset} train"),
            "software": SOFTWARE,
            "device": "cpu",
            "precision": "float32",
        }


def write_records(directory: Path, count: int) -> None:
    """Write `count` records into `directory`."""
    for number, record in enumerate(itertools.islice(generate_records(), count)):
        path = directory / f"record-{number:06}.json"
        path.write_text(json.dumps(asdict(record), indent=1), "utf-8")


def generate_records() -> Iterator[AttackRecord | TrainRecord]:
    """Yield the training of one run after another, and its evaluations."""
    rng = np.random.default_rng(0)
    for seed in itertools.count():
        for dataset, arch, method in itertools.product(DATASETS, ARCHS, METHODS):
            request = TrainRequest(dataset=dataset, method=method, arch=arch, given={"seed": seed})
            config = request.resolve(dataset, num_train=NUM_TRAIN, val_size=NUM_VAL)
            run = Run(arch=arch, config=config)
            yield make_training(run)
            for selection in ("best", "last"):
                yield from generate_attacks(run, selection, rng)


def make_training(run: Run) -> TrainRecord:
    """Return the record of a training run, with a history row for each of its epochs."""
    return TrainRecord(
        **run.fields(),
        config=run.config.to_json(),
        history=make_history(run.config.epochs, run.weights),
        num_train=NUM_TRAIN - NUM_VAL,
        num_val=NUM_VAL,
        seconds=8_000.0,
        images_per_second=1_225.0,
        created="2026-01-02T01:00:00+00:00",
    )


@cache
def make_history(epochs: int, weights: str) -> tuple[dict[str, Any], ...]:
    """Return history rows in which the accuracy never changes."""
    counts = Counts(clean_correct=820, robust_correct=510)
    both = {"student": counts} | ({"average": counts} if weights == "average" else {})
    return tuple(
        HistoryRow(
            epoch=epoch,
            train_loss=1.5,
            lr=0.1,
            annealed={},
            select="val",
            select_n=NUM_VAL,
            counts=both,  # type: ignore[arg-type]
            images_per_second=1_225.0,
            seconds=40.0,
        ).to_json()
        for epoch in range(1, epochs + 1)
    )


def generate_attacks(run: Run, selection: str, rng: np.random.Generator) -> Iterator[AttackRecord]:
    """Yield an evaluation of a checkpoint by each suite, with random outcomes per image."""
    epochs = run.config.epochs
    sha256 = rng.bytes(32).hex()
    order = rng.permutation(NUM_TEST)  # the images from the most robust to the least
    num_clean = int(rng.integers(8_000, 8_600))
    checkpoint: dict[str, Any] = {
        "selection": selection,
        "epoch": epochs if selection == "last" else int(rng.integers(epochs // 2, epochs)),
        "clean_correct": num_clean,
        "checkpoint_sha256": sha256,
        "weights_sha256": sha256,
        "weights": run.weights,
        "training_sha256": run.config.sha256(),
        "data_sha256": hash_text(f"{run.config.dataset} test"),
        "num_classes": DATASETS[run.config.dataset],
    }
    for suite, (stages, parameters) in SUITES.items():
        num_robust = int(rng.integers(4_500, 5_200))
        yield AttackRecord(
            **run.fields(),
            **checkpoint,
            **ATTACK,
            suite=suite,
            parameters=parameters,
            robust_correct=num_robust,
            stages=tuple(
                StageResult(name=name, survivors=num_robust, seconds=60.0) for name in stages
            ),
            verdicts=Outcomes(
                clean=pack_first(order, num_clean), robust=pack_first(order, num_robust)
            ),
        )


def pack_first(order: npt.NDArray[np.int64], count: int) -> str:
    """Return outcomes in which the first `count` images in `order` are correct, packed."""
    correct = np.zeros(NUM_TEST, dtype=np.bool_)
    correct[order[:count]] = True
    return pack_outcomes(correct)


def hash_text(text: str) -> str:
    """Return a SHA-256 in place of that of images."""
    return hashlib.sha256(text.encode()).hexdigest()
