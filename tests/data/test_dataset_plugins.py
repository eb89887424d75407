"""Data sets of plugins and at import paths."""

import sys
from pathlib import Path

import pytest

from adrbench.data import dataset_name, load_dataset, load_split
from adrbench.data.find_source import explain_missing
from adrbench.errors import AdrbenchError, UsageError
from messages import assert_one_sentence
from plugins import Installer

POINTS = {"adrbench.datasets": {"stripes": "stripes_plugin:build"}}
STRIPES = '''
import numpy as np
from adrbench import Dataset

calls = []

def build(data_dir):
    """Horizontal and vertical stripes."""
    calls.append(data_dir)
    y = np.arange(40) % 2
    x = np.zeros((40, 1, 8, 8), np.uint8)
    x[y == 0, :, ::2] = 255
    x[y == 1, :, :, ::2] = 255
    return Dataset.from_arrays(name="any", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])

def fail(data_dir):
    return data_dir / 0

def misuse(data_dir):
    return Dataset.from_arrays(name="any", x_test=None, y_test=None)

def forget(data_dir):
    pass

number = 3
'''


def test_a_plugin_is_called_once_for_all_parts(install_plugin: Installer, tmp_path: Path) -> None:
    install_plugin(POINTS, {"stripes_plugin": STRIPES})
    assert dataset_name("stripes") == "stripes"
    assert explain_missing("stripes") is None
    assert "stripes_plugin" not in sys.modules
    loaded = load_dataset("stripes", data_dir=tmp_path, val_size=10)
    assert (loaded.name, loaded.num_classes, len(loaded.train), len(loaded.val)) == (
        "stripes",
        2,
        30,
        10,
    )
    images, source = load_split("stripes", "test", data_dir=tmp_path)
    assert (len(images), source.name) == (10, "stripes")
    assert sys.modules["stripes_plugin"].calls == [tmp_path]


def test_an_import_path_is_a_data_set(install_plugin: Installer, tmp_path: Path) -> None:
    install_plugin({}, {"stripes_plugin": STRIPES})
    assert dataset_name("stripes_plugin:build") == "stripes_plugin-build"
    _, source = load_split("stripes_plugin:build", "test", data_dir=tmp_path)
    assert source.name == "stripes_plugin-build"


def test_a_file_that_names_code_is_no_reason_to_import_it(install_plugin: Installer) -> None:
    install_plugin({}, {"stripes_plugin": STRIPES})
    reason = explain_missing("stripes_plugin:build")
    assert reason is not None
    assert reason.endswith("give --dataset stripes_plugin:build.")
    assert "stripes_plugin" not in sys.modules
    assert str(explain_missing("stripes")).endswith(", or install the plugin of this name.")
    for gone in ("gone.npz", "~nosuchuser/x.npz", "a\0b.npz", f"{'a' * 5000}.npz"):
        for is_known in (True, False):
            reason = explain_missing(gone, is_known=is_known)
            assert str(reason).endswith("of that data set with --dataset.")
    assert explain_missing("digits") is None


@pytest.mark.parametrize(
    ("attribute", "message"),
    {
        "number": r"data set stripes_plugin:number is a int: it must be a callable \(data_dir\)",
        "fail": r"data set stripes_plugin:fail raised TypeError \(",
        "forget": "data set stripes_plugin:forget returned a NoneType: it must return an adrbench",
        "misuse": "data set 'any' has no test split: give x_test and y_test",
        "missing": "stripes_plugin has no attribute 'missing'",
    }.items(),
)
def test_code_that_makes_no_data_set(
    install_plugin: Installer, tmp_path: Path, attribute: str, message: str
) -> None:
    install_plugin({}, {"stripes_plugin": STRIPES})
    with pytest.raises(AdrbenchError, match=message) as caught:
        load_split(f"stripes_plugin:{attribute}", "test", data_dir=tmp_path)
    assert_one_sentence(str(caught.value))


def test_a_name_like_that_of_a_plugin_is_offered(install_plugin: Installer) -> None:
    install_plugin(POINTS, {"stripes_plugin": STRIPES})
    with pytest.raises(UsageError, match="unknown dataset 'stripe': did you mean stripes"):
        dataset_name("stripe")
