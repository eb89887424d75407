"""History rows: their stored form, rows of earlier versions, and the best epoch."""

import json
from pathlib import Path
from typing import Any

import pytest

from adrbench.results.best_epoch import best_row
from adrbench.results.history import Counts, Criterion, HistoryRow

RECORD = Path(__file__).parents[1] / "fixtures" / "records" / "train-1.json"
STORED: dict[str, Any] = {
    "epoch": 3,
    "train_loss": 1.25,
    "lr": 0.1,
    "temperature": 2.25,
    "interpolation": 0.75,
    "select": "val",
    "select_n": 1000,
    "criterion": "robust",
    "student_clean_correct": 811,
    "student_robust_correct": 522,
    "average_clean_correct": 823,
    "average_robust_correct": 534,
    "images_per_second": 1164.2,
    "seconds": 42.04,
}


def make_row(epoch: int, clean: int, robust: int, criterion: Criterion) -> HistoryRow:
    return HistoryRow(
        epoch=epoch,
        train_loss=1.0,
        lr=0.1,
        annealed={},
        select="val",
        select_n=10,
        criterion=criterion,
        counts={"student": Counts(clean_correct=clean, robust_correct=robust)},
        images_per_second=100.0,
        seconds=1.0,
    )


def test_a_row_keeps_its_stored_form() -> None:
    row = HistoryRow.from_json(STORED)
    assert row.annealed == {"temperature": 2.25, "interpolation": 0.75}
    assert row.counts["average"] == Counts(clean_correct=823, robust_correct=534)
    assert row.accuracy("student", "clean") == pytest.approx(81.1)
    assert row.accuracy("average", "robust") == pytest.approx(53.4)
    assert json.dumps(row.to_json()) == json.dumps(STORED)


def test_rows_of_early_versions_are_read() -> None:
    """They name no criterion, and have nulls where a method anneals nothing."""
    (stored,) = json.loads(RECORD.read_text())["history"]
    row = HistoryRow.from_json(stored)
    assert (row.criterion, row.counts["average"].robust_correct) == ("robust", 19)
    row = HistoryRow.from_json(STORED | {"temperature": None, "interpolation": None})
    assert row.annealed == {}


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({key: STORED[key] for key in STORED if key != "lr"}, "field lr is missing"),
        (STORED | {"epoch": "3"}, "field epoch should be int, not '3'"),
        (STORED | {"temperature": "warm"}, "field temperature should be float"),
        (STORED | {"student_clean_correct": None}, "field student_clean_correct should be int"),
        ([STORED], "a history row should be a table, not a list"),
    ],
)
def test_a_damaged_row_is_refused_by_field(stored: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HistoryRow.from_json(stored)


@pytest.mark.parametrize(("criterion", "chosen"), [("robust", 3), ("clean", 2)])
def test_the_best_epoch_by_hand(criterion: Criterion, chosen: int) -> None:
    """Robust 5, 4, 5, 5 with clean 6, 9, 8, 8: the tie goes to more clean, then to the first."""
    counts = [(6, 5), (9, 4), (8, 5), (8, 5)]
    history = [make_row(i, *count, criterion) for i, count in enumerate(counts, start=1)]
    assert best_row(history, "student").epoch == chosen
