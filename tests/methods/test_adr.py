"""ADR's rectified labels: worked examples, properties and public interface."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adrbench
from adrbench.errors import UsageError
from adrbench.methods.adr import ADR, Rectified
from adrbench.methods.slots import OneHot
from messages import assert_one_line


def test_a_worked_example_where_the_teacher_is_right() -> None:
    """Three classes, first step of many: tau = 2, lambda = 0.7, label 0.

    Logits (2 ln 4, 2 ln 2, 0) over tau are (ln 4, ln 2, 0), so P = (4, 2, 1) / 7. The teacher
    predicts the label, so its weight stays 0.7 and the target is
    0.7 (4/7, 2/7, 1/7) + 0.3 (1, 0, 0) = (0.7, 0.2, 0.1).
    """
    logits = torch.tensor([[2 * math.log(4), 2 * math.log(2), 0.0]], dtype=torch.float64)
    adr = ADR(total_steps=10**9, temperature=(2.0, 1.0), interpolation=(0.7, 0.9))
    target = adr(logits, torch.tensor([0]), step=0)
    torch.testing.assert_close(target, torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64))


def test_a_worked_example_where_the_teacher_is_wrong() -> None:
    """The same teacher, label 2: max P - P_y = 4/7 - 1/7 = 3/7, so its weight is 0.7 - 3/7.

    With w = 0.7 - 3/7 the target is (4w/7, 2w/7, w/7 + 1 - w).
    """
    logits = torch.tensor([[2 * math.log(4), 2 * math.log(2), 0.0]], dtype=torch.float64)
    adr = ADR(total_steps=10**9, temperature=(2.0, 1.0), interpolation=(0.7, 0.9))
    weight = 0.7 - 3 / 7
    expected = [[4 * weight / 7, 2 * weight / 7, weight / 7 + 1 - weight]]
    target = adr(logits, torch.tensor([2]), step=0)
    torch.testing.assert_close(target, torch.tensor(expected, dtype=torch.float64))


def test_temperature_and_lambda_are_at_their_midpoints_halfway() -> None:
    adr = ADR(total_steps=100, temperature=(2.5, 2.0), interpolation=(0.7, 0.9))
    assert adr.temperature(50) == pytest.approx(2.25)
    assert adr.interpolation(50) == pytest.approx(0.8)


def test_a_confident_wrong_teacher_gets_no_weight() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0]])
    target = ADR(total_steps=10)(logits, torch.tensor([1]), step=3)
    torch.testing.assert_close(target, torch.tensor([[0.0, 1.0, 0.0]]))


@given(
    logits=st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=6),
    step=st.integers(0, 20),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_targets_are_distributions_that_raise_the_probability_of_the_label(
    logits: list[list[float]], step: int, data: st.DataObject
) -> None:
    teacher = torch.tensor(logits, dtype=torch.float64)
    y = torch.tensor(
        data.draw(st.lists(st.integers(0, 2), min_size=len(logits), max_size=len(logits)))
    )
    adr = ADR(total_steps=20)
    target = adr(teacher, y, step)
    torch.testing.assert_close(target.sum(1), torch.ones(len(y), dtype=torch.float64))
    assert (target >= 0).all()
    probabilities = torch.softmax(teacher / adr.temperature(step), 1)
    of_label = target.gather(1, y[:, None])
    assert (of_label >= probabilities.gather(1, y[:, None]) - 1e-12).all()


def test_lambda_zero_gives_one_hot_labels() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0])
    target = ADR(total_steps=10, interpolation=(0.0, 0.0))(logits, y, step=4)
    torch.testing.assert_close(target, OneHot(4)(torch.empty(5, 1, 1, 1), y, {}))


def test_the_public_rectifier_does_not_propagate_gradients_to_the_teacher() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    target = adrbench.ADR(total_steps=10)(logits, torch.tensor([0, 1]), step=0)
    assert not target.requires_grad
    assert "total_steps=10, temperature=(2.5, 2.0)" in repr(adrbench.ADR(total_steps=10))


def test_targets_come_from_the_teacher_on_the_clean_batch() -> None:
    teacher = torch.nn.Flatten()
    x = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([2, 0])
    adr = ADR(total_steps=10)
    targets = Rectified(adr, teacher)
    expected = adr(x.flatten(1), y, 5)
    torch.testing.assert_close(targets(x, y, targets.annealed(5)), expected)
    as_tensors = {name: torch.tensor(value) for name, value in targets.annealed(5).items()}
    torch.testing.assert_close(targets(x, y, as_tensors), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"total_steps": 0}, "total_steps is 0"),
        ({"total_steps": 1.5}, "total_steps is 1.5"),
        ({"total_steps": 5, "temperature": (2.0, 0.0)}, "temperature is"),
        ({"total_steps": 5, "temperature": 2.0}, "give two numbers above 0"),
        ({"total_steps": 5, "temperature": (2.0, math.nan)}, "give two numbers above 0"),
        ({"total_steps": 5, "interpolation": (0.5, 1.5)}, "interpolation is"),
        ({"total_steps": 5, "interpolation": ("a", 1)}, "give two numbers from 0 to 1"),
    ],
)
def test_invalid_rectifier_arguments_are_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ADR(**arguments)  # type: ignore[arg-type]
    assert_one_line(str(caught.value))


def test_numbers_of_numpy_are_numbers() -> None:
    adr = ADR(total_steps=np.int64(10), temperature=(np.float32(2), np.float64(1)))  # type: ignore[arg-type]
    target = adr(torch.zeros(1, 2), torch.tensor([0]), np.int64(3))  # type: ignore[arg-type]
    assert torch.equal(target, ADR(total_steps=10)(torch.zeros(1, 2), torch.tensor([0]), 3))


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0])
MANY, MANY_Y = 5 * LOGITS.repeat(2, 1), Y.repeat(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LOGITS.numpy(), Y, 0), "logits is a ndarray: pass a tensor"),
        ((LOGITS[0], Y, 0), "of shape (3,): pass the teacher's outputs"),
        ((LOGITS.long(), Y, 0), "logits are torch.int64"),
        ((LOGITS, Y[:3], 0), "int64 class indices of shape (4,)"),
        ((LOGITS, Y[:, None], 0), "y are torch.int64 of shape (4, 1)"),
        ((LOGITS, Y.float(), 0), "y are torch.float32"),
        ((LOGITS, Y.to("meta"), 0), "y are on meta and logits on cpu"),
        ((LOGITS, Y + 1, 0), "y are from 1 to 3, but logits of 3 classes require labels from 0"),
        ((LOGITS, Y - 1, 0), "y are from -1 to 1"),
        ((LOGITS, Y, -1), "step is -1"),
        ((LOGITS, Y, 0.5), "step is 0.5"),
        ((MANY.softmax(1), MANY_Y, 0), "pass the teacher's outputs before the softmax"),
        ((MANY.softmax(1).bfloat16(), MANY_Y, 0), "logits are probabilities"),
    ],
)
def test_invalid_batches_are_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        ADR(total_steps=10)(*arguments)
    assert_one_line(str(caught.value))


def test_log_probabilities_are_logits() -> None:
    adr = ADR(total_steps=10)
    torch.testing.assert_close(adr(MANY.log_softmax(1), MANY_Y, 2), adr(MANY, MANY_Y, 2))


def test_steps_after_the_last_keep_the_final_values_with_a_warning() -> None:
    adr = ADR(total_steps=10)
    adr(LOGITS, Y, 10)
    with pytest.warns(UserWarning, match="step 11 is beyond total_steps=10"):
        after = adr(LOGITS, Y, 11)
    end = ADR(total_steps=1, temperature=(2.0, 2.0), interpolation=(0.95, 0.95))
    torch.testing.assert_close(after, end(LOGITS, Y, 0))
