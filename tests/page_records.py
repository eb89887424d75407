"""Records with everything that a page shows, plain and hostile, and a reader of its HTML."""

from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from adrbench.config.threat import ThreatModel
from adrbench.report import read_results
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    Record,
    StageResult,
    pack_outcomes,
)
from adrbench.runtime.typed_json import from_json, to_json
from report_outputs import make_outputs, save
from report_records import (
    attack_record,
    cifar10_records,
    digits_config,
    inspect_record,
    train_record,
)

#: Markup, quotes, markdown, LaTeX, control characters, and a name that is far too long.
HOSTILE = (
    '<script>alert("x")</script><img src=x onerror="alert(1)">\'"&amp;\x00\x07\x1b[31m\u202e\n'
    "|`*_[a](javascript:x) $\\frac{1}{0}$ %\\input{x} {{ 7 * 7 }}" + "A" * 10_000
)
VOID = {"meta", "img", "input", "br", "link"}


def history(offset: int, num_epochs: int = 6) -> tuple[dict[str, Any], ...]:
    """Return the history of a run of `at+wa`, whose accuracy rises and then falls."""
    return tuple(
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch + 0.01 * offset,
            "lr": 0.1,
            "select": "val",
            "select_n": 100,
            "student_clean_correct": 60 + epoch,
            "student_robust_correct": 40 + offset - abs(epoch - 4),
            "average_clean_correct": 61 + epoch,
            "average_robust_correct": 42 + offset - abs(epoch - 4),
            "images_per_second": 100.0,
            "seconds": 1.0,
        }
        for epoch in range(1, num_epochs + 1)
    )


def page_records() -> list[Record]:
    """Return records for every block of a page but those of outputs."""
    records = [
        _complete(record) if isinstance(record, AttackRecord) else record
        for record in cifar10_records()
    ]
    for seed in (0, 1):
        run = {"method": "at+wa", "seed": seed, "history": history(seed)}
        config = digits_config(method="at+wa", seed=seed, ema_decay=0.98).to_json()
        records.append(train_record(dataset="digits", arch="small-cnn", config=config, **run))
    records.append(inspect_record(class_names=("zero", "one", "two")))
    for eps in (2 / 255, 4 / 255):
        threat = ThreatModel(norm="Linf", eps=eps)
        changes = {"suite": "pgd-20", "method": "trades", "n": 1_000, "threat_model": threat}
        changes["parameters"] = {"steps": 20, "alpha": eps / 4, "restarts": 1}
        records.append(attack_record(830, round(800 - 4_000 * eps), **changes))
    return records


def _complete(record: AttackRecord) -> AttackRecord:
    """Return a record with outcomes per example, and with the stages of AutoAttack."""
    random = np.random.default_rng(record.seed)
    order = random.permutation(record.n)
    robust, clean = order < record.robust_correct, order < record.clean_correct
    stages = _make_stages(record.robust_correct) if record.suite == "autoattack" else record.stages
    outcomes = Outcomes(clean=pack_outcomes(clean), robust=pack_outcomes(robust))
    return replace(record, stages=stages, verdicts=outcomes)


def _make_stages(robust: int) -> tuple[StageResult, ...]:
    left = (("apgd-ce", 190), ("apgd-t", 10), ("fab-t", 0), ("square", 0))
    return tuple(
        StageResult(name=name, survivors=robust + more, seconds=1.0) for name, more in left
    )


def make_hostile(record: Any, text: str = HOSTILE) -> Any:
    """Return a record as it is read from a file with `text` in every field of any text."""
    free = {
        *("dataset", "arch", "activation", "method", "run", "label", "suite", "device"),
        *("name", "commit", "data_sha256", "weights_sha256", "training_images_sha256"),
        *("model_code", "precision", "searched", "judged"),
    }
    changes: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            changes[field.name] = make_hostile(value, text)
        elif field.name in free and isinstance(value, str):
            changes[field.name] = text
        elif field.name in ("warnings", "versions", "plugins", "parameters"):
            changes[field.name] = (text,) if isinstance(value, tuple) else {text: text}
        elif field.name == "class_names":
            changes[field.name] = (text,) * len(value)
        elif field.name == "stages":
            changes[field.name] = tuple(
                replace(stage, name=f"{text}{i}") for i, stage in enumerate(value)
            )
    changes.pop("norm", None)
    return from_json(type(record), to_json(replace(record, **changes)))


def hostile_records() -> list[Record]:
    """Return records whose every name is hostile."""
    return [make_hostile(record) for record in page_records()]


def save_outputs(directory: Path, name: str = "") -> list[Record]:
    """Write outputs of three seeds of two methods; with a `name`, it is that of all classes."""
    for method, sharpness in (("at", 2.0), ("adr", 1.0)):
        for seed in range(3):
            outputs = make_outputs(seed, sharpness=sharpness)
            if name:
                outputs = replace(outputs, class_names=(name,) * outputs.num_classes)
            save(directory, outputs, seed, method=method)
    return read_results([directory])


class ParsedPage(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def text_of(self, tag: str) -> str:
        return "".join(data for own, data in self.texts if own == tag)
