"""`train --split-seed`: which images are held out, apart from the seed of everything else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import Checkpoint
from runner import QUICK, succeed


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(name: str, *options: str, dataset: str = "digits") -> Checkpoint:
    succeed("train", dataset, "--method", "at", "--name", name, *QUICK, *options)
    return checkpoints.load(Path("checkpoints", name, "last.pt"))


def weights(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint.snapshots["student"].state


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())


def images(checkpoint: Checkpoint) -> tuple[str, str]:
    return checkpoint.data_sha256, checkpoint.selection_sha256


def test_two_seeds_hold_out_the_same_images_and_train_other_weights() -> None:
    apart = [train(f"seed-{seed}", "--seed", seed) for seed in "01"]
    fixed = [train(f"fixed-{seed}", "--seed", seed, "--split-seed", "0") for seed in "01"]
    assert images(apart[0]) != images(apart[1])
    assert images(fixed[0]) == images(fixed[1]) == images(apart[0])
    assert not same_weights(fixed[0], fixed[1])
    assert same_weights(fixed[0], apart[0]), "the split of seed 0, and seed 0 for the rest"
    assert fixed[0].config.sha256() == fixed[1].config.sha256() != apart[0].config.sha256()


@pytest.mark.parametrize("has_own_validation", [False, True])
def test_it_is_ignored_with_a_note_where_nothing_is_drawn(has_own_validation: bool) -> None:
    rng = np.random.default_rng(0)
    parts = ("train", "test", "val") if has_own_validation else ("train", "test")
    arrays: dict[str, Any] = {}
    for part in parts:
        arrays[f"x_{part}"] = rng.integers(0, 256, (64, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(64) % 2
    np.savez("own.npz", **arrays)
    chosen_on = () if has_own_validation else ("--select", "test")
    options = ("--arch", "small-cnn", "--batch-size", "32", *chosen_on)
    plain = train("plain", *options, dataset="own.npz")
    line = ("--method", "at", *QUICK, *options, "--split-seed", "3")
    outcome = succeed("train", "own.npz", *line, "--name", "given")
    (note,) = (note for note in outcome.notes if "split-seed" in note)
    assert note.startswith("note: --split-seed is ignored: no validation images are drawn")
    given = checkpoints.load(Path("checkpoints", "given", "last.pt"))
    assert given.config.split_seed is None
    assert given.config.sha256() == plain.config.sha256()
    assert same_weights(given, plain)
