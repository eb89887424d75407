"""Measures of outputs: torchmetrics and scikit-learn agree, values by hand, and extreme logits."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from adrbench.report.outputs.measures import CALIBRATION, NUM_BINS, find_bins
from adrbench.report.outputs.predictions import Predictions, divergence, total_variation

LOG = np.log


def random_logits(n: int, num_classes: int, scale: float) -> Predictions:
    random = np.random.default_rng(n + num_classes)
    logits = scale * random.normal(size=(n, num_classes))
    return Predictions(logits.astype(np.float32), random.integers(0, num_classes, n))


def of_probabilities(probabilities: Any, labels: Any) -> Predictions:
    return Predictions(LOG(np.array(probabilities)), np.array(labels))


def right_or_wrong(labels: Any) -> Predictions:
    """Return confident outputs for class 0 of three, on 20 images."""
    return of_probabilities([[0.7, 0.2, 0.1]] * 20, labels)


#: A confidence on each bin edge above 1/5, each once right and once wrong.
ON_EDGES = of_probabilities(
    [[p, *[(1 - p) / 9] * 9] for p in np.arange(3, 15) / NUM_BINS for _ in (0, 1)],
    [0, 1] * 12,
)
CASES = {
    "random": random_logits(1_000, 10, 3),
    "two classes": random_logits(500, 2, 2),
    "100 classes": random_logits(300, 100, 8),
    "one image": random_logits(1, 10, 1),
    "all right": right_or_wrong([0] * 20),
    "all wrong": right_or_wrong([1] * 20),
    "on bin edges": ON_EDGES,
    "uniform": Predictions(np.zeros((30, 5)), np.arange(30) % 5),
    "ties of two": Predictions(np.array([[2.0, 2.0, 0.0]] * 6), np.arange(6) % 3),
    "certain": Predictions(np.eye(4)[[0, 1, 2, 3, 0]] * 1e4, np.array([0, 1, 2, 0, 1])),
    "logits of 10,000": random_logits(50, 10, 1e4),
}


@pytest.mark.parametrize("name", CASES)
def test_calibration_error_is_that_of_torchmetrics(name: str) -> None:
    found = CASES[name]
    oracle = MulticlassCalibrationError(found.num_classes, n_bins=NUM_BINS, norm="l1")
    expected = oracle(torch.tensor(found.probabilities), torch.tensor(found.labels))
    assert CALIBRATION["ece"].of(found) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_brier_score_is_that_of_scikit_learn(name: str) -> None:
    found = CASES[name]
    expected = brier_score_loss(
        found.labels,
        found.probabilities,
        labels=range(found.num_classes),
        scale_by_half=False,
    )
    assert CALIBRATION["brier"].of(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_log_likelihood_is_that_of_scikit_learn_where_it_clips_no_probability(name: str) -> None:
    found = CASES[name]
    smallest = float(np.finfo(np.float64).eps)
    clipped = np.minimum(found.negative_log_likelihood, -LOG(smallest)).mean()
    expected = log_loss(found.labels, found.probabilities, labels=range(found.num_classes))
    assert clipped == pytest.approx(expected, abs=1e-6)
    if found.probabilities.min() > smallest:
        assert CALIBRATION["nll"].of(found) == clipped


def test_edges_are_those_of_torchmetrics() -> None:
    edges = torch.linspace(0, 1, NUM_BINS + 1).numpy()
    assert find_bins(edges.astype(np.float64)).tolist() == list(range(NUM_BINS + 1))
    below = np.nextafter(edges[1:], np.float32(0)).astype(np.float64)
    assert find_bins(below).tolist() == list(range(NUM_BINS))


def test_measures_by_hand() -> None:
    """Two images right at a confidence of 0.61 and one wrong at 0.81, in bins 9 and 12.

    The gaps of the bins are 0.39 and 0.81. An error of e in two classes has a squared sum of 2 e^2.
    """
    found = of_probabilities([[0.61, 0.39], [0.61, 0.39], [0.19, 0.81]], [0, 0, 0])
    values = {name: measure.of(found) for name, measure in CALIBRATION.items()}
    assert values == pytest.approx(
        {
            "accuracy": 2 / 3,
            "confidence": (2 * 0.61 + 0.81) / 3,
            "ece": (2 * 0.39 + 0.81) / 3,
            "brier": (4 * 0.39**2 + 2 * 0.81**2) / 3,
            "nll": -(2 * LOG(0.61) + LOG(0.19)) / 3,
            "confidence_right": 0.61,
            "confidence_wrong": 0.81,
        }
    )


def test_consistency_by_hand() -> None:
    clean = of_probabilities([[0.5, 0.5], [0.9, 0.1]], [0, 0])
    adversarial = of_probabilities([[0.25, 0.75], [0.9, 0.1]], [0, 0])
    expected = 0.5 * LOG(0.5 / 0.25) + 0.5 * LOG(0.5 / 0.75)
    assert divergence(clean, adversarial) == pytest.approx([expected, 0])
    assert total_variation(clean, adversarial) == pytest.approx([0.25, 0])


def test_logits_of_any_size_give_finite_measures() -> None:
    huge = Predictions(np.array([[1e30, -1e30, 0]], np.float32), np.array([1]))
    other = Predictions(np.array([[-1e30, 1e30, 0]], np.float32), np.array([1]))
    assert CALIBRATION["nll"].of(huge) == pytest.approx(2e30)
    assert divergence(huge, other) == pytest.approx([2e30])
    assert total_variation(huge, other) == pytest.approx([1])


def test_confidence_is_undefined_without_such_predictions() -> None:
    assert np.isnan(CALIBRATION["confidence_wrong"].of(CASES["all right"]))
    assert np.isnan(CALIBRATION["confidence_right"].of(CASES["all wrong"]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="the logits of 1 images are not finite"):
        Predictions(np.array([[0, value], [0, 1]]), np.array([0, 0]))
