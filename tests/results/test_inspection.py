"""The record of an inspection: round trip, its pixels, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.errors import RecordError
from adrbench.report import build_report, select_latest
from adrbench.results.inspection import pack_pixels, unpack_pixels
from adrbench.results.records import read_record, write_record
from report_records import inspect_record, train_record


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = inspect_record(class_names=("zero", "one", "<two>"))
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record


def test_pixels_survive_packing() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    assert np.array_equal(unpack_pixels(pack_pixels(pixels), (3, 4, 2)), pixels)


def test_pixels_are_packed_row_by_row() -> None:
    """Bytes 0 and 255 are 000000 001111 1111(00) in groups of six bits: A, P, 8."""
    assert pack_pixels(np.array([[[0], [255]]], dtype=np.uint8)) == "AP8="


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n": 0}, "1 <= n <= num_train"),
        ({"num_disagreeing": 4}, "num_disagreeing <= n"),
        ({"class_counts": [2, 1]}, "should be of 3 classes"),
        ({"class_names": ["one"]}, "should be of 3 classes"),
        ({"class_counts": [1, 1, 0]}, "should sum to n, 3"),
        ({"mean_labels": [[0.5, 0.5, 0.5]] * 2 + [[0.5]]}, "should be of 3 classes"),
        ({"mean_labels": [[0.5, 0.5, float("nan")]] * 3}, "from 0 to 1"),
        ({"num_classes": 0, "class_counts": [], "mean_labels": []}, "num_classes should be at"),
        ({"schedule": []}, "schedule should have the epochs from 1 on"),
        ({"image_shape": [1, 2, 2]}, "2 bytes of pixels are not an image of shape (1, 2, 2)"),
        ({"temperature": 0.0}, "temperatures should be from 1e-07 to 1e+07"),
        ({"temperature": 1.7e308}, "temperatures should be from 1e-07 to 1e+07"),
        ({"temperature": float("nan")}, "temperatures should be from 1e-07 to 1e+07"),
        (
            {"schedule": [{"epoch": 1, "temperature": 1.7e308, "interpolation": 0.5}], "epoch": 1},
            "temperatures should be from 1e-07 to 1e+07",
        ),
        (
            {"schedule": [{"epoch": 2, "temperature": 1.0, "interpolation": 0.5}]},
            "schedule should have the epochs from 1 on",
        ),
        ({"epoch": -1}, "epoch should be from 0 to 3, not -1"),
        ({"epoch": 4}, "epoch should be from 0 to 3, not 4"),
        ({"mean_entropy": float("inf")}, "mean_entropy should be from 0 to 1.099, not inf"),
        ({"mean_entropy": 1.2}, "mean_entropy should be from 0 to 1.099, not 1.2"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "record.json"
    write_record(path, inspect_record())
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": 3}, "an index from 0 to 2"),
        ({"predicted": 3}, "classes from 0 to 2"),
        ({"pixels": "!"}, "not base64"),
        ({"label_probability": 1.5}, "from 0 to 1"),
    ],
)
def test_images_that_cannot_be_those_of_the_run_are_refused(
    change: dict[str, Any], reason: str
) -> None:
    record = inspect_record()
    (image,) = record.disagreeing
    with pytest.raises(ValueError, match=reason):
        replace(record, disagreeing=(replace(image, **change),))


def test_the_tables_of_a_report_are_the_same_with_and_without_inspections() -> None:
    training = train_record()
    assert build_report([training, inspect_record()]) == build_report([training])


def test_the_latest_inspection_of_each_checkpoint_is_selected() -> None:
    old, new = (inspect_record(created=f"2026-01-0{day}") for day in (1, 2))
    last = inspect_record(selection="last")
    assert select_latest([old, new, last]) == [new, last]
