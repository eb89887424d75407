"""Short training runs on the digits, and how two of them are compared."""

import json
from pathlib import Path
from typing import Any

import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.training import saving

CPU = torch.device("cpu")
EPOCHS = 3


def make_config(method: str = "adr+wa+awp", **changes: Any) -> TrainConfig:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    short = {"epochs": EPOCHS, "steps": 2, "val_size": 40, "milestones": (0.4,)}
    values: dict[str, Any] = {**preset.values, **short, **changes}
    return TrainConfig.of(dataset="digits", arch="small-cnn", method=method, **values)


def assert_same_run(one: Path, other: Path) -> None:
    """Hold that two run directories hold bitwise the same weights, best and last, and history."""
    for name in (checkpoints.BEST, checkpoints.LAST):
        ours, theirs = (checkpoints.load(directory / name) for directory in (one, other))
        assert ours.snapshots.keys() == theirs.snapshots.keys()
        for weights, snapshot in ours.snapshots.items():
            assert snapshot.epoch == theirs.snapshots[weights].epoch
            for key, value in snapshot.state.items():
                assert torch.equal(value, theirs.snapshots[weights].state[key]), (name, key)
    assert stable_history(one) == stable_history(other)


def stable_history(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / saving.HISTORY).read_text().splitlines()
    timing = {"seconds", "images_per_second"}
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]
