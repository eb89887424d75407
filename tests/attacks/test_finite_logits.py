"""Rows of logits that are not finite predict a wrong class of their own image."""

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.finite_logits import FiniteLogits
from tiny import Linear, labelled_by, make_images

MODEL = Linear(classes=5, size=6)
IMAGES = labelled_by(MODEL, make_images(12, classes=5, size=6))
X, Y = IMAGES.pixels / 255, IMAGES.labels


class AlwaysNaN(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 5), torch.nan) + x.flatten(1).sum(1, keepdim=True)


def test_finite_logits_and_gradients_are_unchanged() -> None:
    x, other = X.clone().requires_grad_(), X.clone().requires_grad_()
    logits, expected = FiniteLogits(MODEL, X, Y)(x), MODEL(other)
    assert torch.equal(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    assert x.grad is not None
    assert other.grad is not None
    assert torch.equal(x.grad, other.grad)


def test_a_row_of_a_whole_batch_has_the_label_of_its_position() -> None:
    """Each image is perturbed so much that it is the next one of the batch, of another label."""
    logits = FiniteLogits(AlwaysNaN(), X, Y)(X.roll(1, dims=0))
    assert logits.isfinite().all()
    assert (logits.argmax(1) != Y).all()


@pytest.mark.parametrize("indices", [[3], [2, 5, 6], [11, 2]])
def test_a_row_of_a_part_has_the_label_of_the_nearest_image(indices: list[int]) -> None:
    x = (X[indices] + 0.01).requires_grad_()
    logits = FiniteLogits(AlwaysNaN(), X, Y)(x)
    assert (logits.argmax(1) != Y[indices]).all()
    logits.sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()
