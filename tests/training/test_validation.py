"""Validation of a model whose logits are not finite, although its loss and weights are."""

import dataclasses
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.data import Dataset, load_dataset
from adrbench.errors import AdrbenchError
from adrbench.training import loop as training
from messages import assert_one_sentence
from tiny import batch_norms
from training_runs import CONTEXT, make_config, stable_history


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = load_dataset("digits", data_dir=Path("unused"), val_size=40)
    return dataclasses.replace(whole, train=whole.train.first(200))


def test_a_run_ends_at_the_epoch_whose_logits_are_not_finite(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In train mode BatchNorm does not use its running variance, so the loss stays finite."""
    take_steps = training.take_steps

    def break_the_second_epoch(run, state, *rest) -> None:  # type: ignore[no-untyped-def]
        take_steps(run, state, *rest)
        if state.epochs_done == 1:
            variance = batch_norms(state.model)[0].running_var
            assert variance is not None
            variance[0] = -1.0

    monkeypatch.setattr(training, "take_steps", break_the_second_epoch)
    directory = tmp_path / "run"
    with pytest.raises(AdrbenchError) as caught:
        training.train(make_config("at"), digits, directory, context=CONTEXT)
    assert_one_sentence(
        str(caught.value),
        "logits of the student weights are not finite",
        "on 40 of 40 clean images",
        "epoch 2",
        "keeps the last good state",
    )
    assert len(stable_history(directory)) == 1
    saved = checkpoints.load(directory / checkpoints.LAST).snapshots["student"]
    assert saved.epoch == 1
    assert all(torch.isfinite(value).all() for value in saved.state.values())
