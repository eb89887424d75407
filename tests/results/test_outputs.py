"""The file of a model's outputs: what is written is read, and what is damaged is refused."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.errors import RecordError
from adrbench.results.outputs import Outputs, OutputsFinder, read_outputs, write_outputs


def make_outputs(n: int = 5, num_classes: int = 3) -> Outputs:
    random = np.random.default_rng(0)
    return Outputs(
        labels=np.arange(n) % num_classes,
        clean_logits=random.normal(size=(n, num_classes)).astype(np.float32),
        adversarial_logits=random.normal(size=(n, num_classes)).astype(np.float32),
        linf=random.random(n, np.float32),
        l2=random.random(n, np.float32),
        images=random.random((2, 1, 4, 4), np.float32),
        adversarial_images=random.random((2, 1, 4, 4), np.float32),
        class_names=("<script>", "ba$h", "ü"),
    )


def test_outputs_survive_a_round_trip(tmp_path: Path) -> None:
    outputs = make_outputs()
    path = tmp_path / "run-pgd-20.npz"
    found = read_outputs(path, write_outputs(path, outputs))
    assert found.class_names == outputs.class_names
    for name in ("labels", "clean_logits", "adversarial_logits", "linf", "l2", "images"):
        np.testing.assert_array_equal(getattr(found, name), getattr(outputs, name))


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    file = write_outputs(path, make_outputs())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="has changed since its record was written"):
        read_outputs(path, file)


def test_the_right_one_of_two_files_of_a_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = write_outputs(tmp_path / "a" / "run.npz", make_outputs(4))
    second = write_outputs(tmp_path / "run.npz", make_outputs(5))
    finder = OutputsFinder.search([tmp_path])
    sizes = [len(found.labels) for one in (first, second) if (found := finder.read(one))]
    assert sizes == [4, 5]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    file = write_outputs(tmp_path / "run.npz", make_outputs())
    finder = OutputsFinder.search([tmp_path / "run.json"])
    assert finder.read(file) is not None
    (tmp_path / "run.npz").unlink()
    assert finder.read(file) is None
    assert OutputsFinder.search([tmp_path]).read(file) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.array([0, 1, 2, 0, 3]), "labels are not those of 3 classes"),
        ("linf", np.zeros(4, np.float32), "linf has shape (4,), not (5,)"),
        ("class_names", ("one",), "there are 1 names of 3 classes"),
        ("adversarial_images", np.zeros((1, 1, 4, 4), np.float32), "adversarial_images has shape"),
    ],
)
def test_outputs_that_do_not_fit_together_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(make_outputs(), **{name: value})
