"""Short training runs on the digits, and a comparison of two runs."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.runtime.context import Context
from adrbench.training.checkpointer import HISTORY

CPU = torch.device("cpu")
CONTEXT = Context(device=CPU)
EPOCHS = 3


def make_config(method: str = "adr+wa+awp", **changes: Any) -> TrainConfig:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    short = {"epochs": EPOCHS, "steps": 2, "val_size": 40, "milestones": (0.4,)}
    values: dict[str, Any] = {**preset.values, **short, **changes}
    return TrainConfig.of(dataset="digits", arch="small-cnn", method=method, **values)


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two runs have bitwise the same weights, best and last, and the same history."""
    for name in (checkpoints.BEST, checkpoints.LAST):
        ours, theirs = (checkpoints.load(directory / name) for directory in (one, other))
        assert ours.snapshots.keys() == theirs.snapshots.keys()
        for weights, snapshot in ours.snapshots.items():
            assert snapshot.epoch == theirs.snapshots[weights].epoch
            for key, value in snapshot.state.items():
                assert torch.equal(value, theirs.snapshots[weights].state[key]), (name, key)
    assert stable_history(one) == stable_history(other)


def stable_history(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's history without their times."""
    lines = (directory / HISTORY).read_text().splitlines()
    return stable_rows(json.loads(line) for line in lines)


def stable_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    timing = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timing} for row in rows]
