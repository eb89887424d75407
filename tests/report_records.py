"""Fixed records for the report's tests, made from counts alone, and ways to look at tables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adrbench.config.settings import TrainConfig
from adrbench.config.threat import ThreatModel
from adrbench.report import Report, Table, build_report
from adrbench.report.statistics import Figure
from adrbench.results.inspection import AnnealedEpoch, ClassPair, InspectRecord, LabeledImage
from adrbench.results.migrations import label_from_run_name
from adrbench.results.records import AttackRecord, Outcomes, Record, TrainRecord
from adrbench.results.software import Software

SOFTWARE = Software(versions={"adrbench": "0.1.0"}, commit="0123abc", dirty=False)
EPS = 8 / 255
PARAMETERS: dict[str, dict[str, Any]] = {
    "pgd-20": {"steps": 20, "alpha": EPS / 4, "restarts": 1},
    "autoattack": {"version": "standard", "package": "pyautoattack 0.2.0", "num_targets": 9},
}


def attack_record(clean: int, robust: int, **changes: Any) -> AttackRecord:
    """Return an evaluation of CIFAR-10's whole test set by AutoAttack, changed by `changes`."""
    values: dict[str, Any] = {
        "dataset": "cifar10",
        "split": "test",
        "n": 10_000,
        "num_test": 10_000,
        "num_classes": 10,
        "published_test_set": True,
        "data_sha256": "d" * 64,
        "arch": "resnet18",
        "activation": "relu",
        "method": "at",
        "weights": "student",
        "selection": "best",
        "selected_on": "val",
        "epoch": 104,
        "seed": 0,
        "checkpoint_sha256": "c" * 64,
        "weights_sha256": "c" * 64,
        "training_sha256": "e" * 64,
        "threat_model": ThreatModel(norm="Linf", eps=EPS),
        "suite": "autoattack",
        "attack_seed": 0,
        "batch_size": 250,
        "clean_correct": clean,
        "robust_correct": robust,
        "stages": (),
        "verdicts": Outcomes(clean="", robust=""),
        "warnings": (),
        "software": SOFTWARE,
        "device": "cpu",
        "precision": "float32",
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 60.0,
    } | changes
    defaults = {
        "run": "{dataset}-{arch}-{method}-seed{seed}".format(**values),
        "parameters": PARAMETERS.get(values["suite"], {}),
    }
    record = AttackRecord(**(defaults | values))
    return record if "label" in values else replace(record, label=former_label(record))


def former_label(record: AttackRecord | TrainRecord) -> str:
    """Return the label that migration gives a record without training images."""
    if isinstance(record, AttackRecord) and (record.weights == "file" or record.seed is None):
        return ""
    held = record.config if isinstance(record, TrainRecord) else {"activation": record.activation}
    return label_from_run_name(
        record.run,
        dataset=record.dataset,
        arch=record.arch,
        activation=str(held.get("activation")),
        method=record.method,
        seed=record.seed,
    )


def foreign_record(clean: int, robust: int, run: str, **changes: Any) -> AttackRecord:
    """Return an evaluation of weights of unknown history, as `attack` makes of them."""
    unknown = {"method": "", "weights": "file", "selection": "file"}
    nothing = {"selected_on": None, "epoch": None, "seed": None, "training_sha256": None}
    return attack_record(clean, robust, run=run, **(unknown | nothing | changes))


def train_record(**changes: Any) -> TrainRecord:
    """Return a finished run of 200 epochs, changed by `changes`."""
    values: dict[str, Any] = {
        "dataset": "cifar10",
        "arch": "resnet18",
        "method": "at",
        "seed": 0,
        "config": {},
        "history": tuple({"epoch": epoch} for epoch in range(1, 201)),
        "num_train": 49_000,
        "num_val": 1_000,
        "seconds": 8_412.5,
        "images_per_second": 1_164.9,
        "software": SOFTWARE,
        "device": "NVIDIA H200",
        "precision": "bfloat16",
        "created": "2026-01-02T01:00:00+00:00",
    } | changes
    name = "{dataset}-{arch}-{method}-seed{seed}".format(**values)
    record = TrainRecord(**({"run": name} | values))
    return record if "label" in values else replace(record, label=former_label(record))


def digits_config(**changes: Any) -> TrainConfig:
    """Return the settings of a run on digits by `at`, changed by `changes`."""
    values: dict[str, Any] = {
        "dataset": "digits",
        "arch": "small-cnn",
        "method": "at",
        "epochs": 30,
        "batch_size": 64,
        "lr": 0.05,
        "milestones": (0.5, 0.75),
        "lr_factor": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "eps": 0.1,
        "alpha": 0.025,
        "steps": 10,
        "crop_padding": 1,
        "flip": False,
        "val_size": 143,
    }
    return TrainConfig.of(**(values | changes))


def cifar10_records() -> list[Record]:
    """Return three seeds of PGD-AT, two of ADR with its average, and a few odd rows."""
    records: list[Record] = []
    for seed, best, last in ((0, 4_730, 4_060), (1, 4_720, 4_040), (2, 4_740, 4_080)):
        records.append(attack_record(8_230 + seed, best, seed=seed, epoch=104 + seed))
        pgd = {"suite": "pgd-20", "seed": seed}
        records.append(attack_record(8_230 + seed, best + 400, epoch=104 + seed, **pgd))
        ends = {"selection": "last", "epoch": 200}
        records.append(attack_record(8_460, last, seed=seed, **ends))
        records.append(attack_record(8_460, last + 310, **pgd, **ends))
    for seed in (0, 1):
        adr = {"method": "adr", "seed": seed, "epoch": 131}
        records.append(attack_record(8_241, 4_850 + 20 * seed, **adr))
        records.append(attack_record(8_259, 4_940 + 20 * seed, weights="average", **adr))
        ends = {**adr, "weights": "average", "selection": "last", "epoch": 200}
        records.append(attack_record(8_345, 4_490 + 10 * seed, **ends))
    warning = "robust accuracy under Square is lower than under FAB: gradients may be masked"
    records += [
        attack_record(
            8_300, 5_010, method="adr+wa", weights="average", selected_on="test", epoch=120
        ),
        attack_record(830, 481, method="trades", n=1_000, suite="pgd-20", warnings=(warning,)),
        foreign_record(8_024, 5_106, "robustbench:Addepalli2021Towards_RN18", arch="zoo"),
        train_record(),
        train_record(method="adr", seconds=8_590.0, images_per_second=1_140.8),
    ]
    return records


def digits_records() -> list[Record]:
    """Return two runs on the embedded data set, whose test images nobody publishes figures on."""
    own = {"dataset": "digits", "arch": "small-cnn", "published_test_set": False}
    size = {"n": 360, "num_test": 360, "threat_model": ThreatModel(norm="Linf", eps=0.1)}
    records: list[Record] = []
    for method, weights, clean, pgd in (
        ("at", "student", 351, 290),
        ("adr+wa", "average", 349, 301),
    ):
        model = {"method": method, "weights": weights, "epoch": 12}
        records.append(attack_record(clean, pgd, suite="pgd-20", **own, **size, **model))
        records.append(attack_record(clean, pgd - 9, **own, **size, **model))
        ends = {**model, "selection": "last", "epoch": 20}
        records.append(attack_record(clean, pgd - 4, suite="pgd-20", **own, **size, **ends))
    return records


def fixed_records() -> list[Record]:
    """Return the records behind the expected files."""
    return cifar10_records() + digits_records()


def table(report: Report, name: str) -> Table:
    found = [table for table in report.tables if table.name == name]
    assert len(found) == 1, f"{len(found)} tables called {name}"
    return found[0]


def accuracy_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    rows = table(build_report(records), "robust accuracy").rows
    return [{**row.cells, "marks": row.footnotes} for row in rows]


def figure(cell: object) -> Figure:
    assert isinstance(cell, Figure)
    return cell


def inspect_record(**changes: Any) -> InspectRecord:
    """Return an inspection of three classes and three images of two pixels by one."""
    image: dict[str, Any] = {
        "label": 0,
        "predicted": 1,
        "label_probability": 0.75,
        "predicted_probability": 0.5,
    }
    values: dict[str, Any] = {
        "run": "digits-small-cnn-adr+wa-seed0",
        "run_id": "0123abcd",
        "dataset": "digits",
        "arch": "small-cnn",
        "method": "adr+wa",
        "seed": 0,
        "selection": "best",
        "epoch": 2,
        "steps": 40,
        "total_steps": 60,
        "num_classes": 3,
        "data_sha256": "d" * 64,
        "checkpoint_sha256": "c" * 64,
        "num_train": 1294,
        "n": 3,
        "temperature": 0.8,
        "interpolation": 0.6,
        "schedule": tuple(
            AnnealedEpoch(epoch=epoch, temperature=1 - epoch / 10, interpolation=epoch / 5)
            for epoch in (1, 2, 3)
        ),
        "class_counts": (2, 1, 0),
        "mean_labels": ((0.75, 0.125, 0.125), (0.125, 0.75, 0.125), (0.0, 0.0, 0.0)),
        "mean_entropy": 0.7,
        "mean_label_probability": 0.75,
        "pairs": (
            ClassPair(first=0, second=1, first_to_second=0.125, second_to_first=0.125, mass=0.125),
        ),
        "num_disagreeing": 1,
        "image_shape": (1, 2, 1),
        "moved": tuple(LabeledImage(index=index, pixels="AP8=", **image) for index in (1, 0)),
        "disagreeing": (LabeledImage(index=1, pixels="AP8=", **image),),
        "software": SOFTWARE,
        "device": "cpu",
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 6.0,
    }
    return InspectRecord(**(values | changes))
