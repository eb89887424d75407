"""Images and labels as `adrbench.evaluate` takes them."""

from typing import Any

import numpy as np
import pytest
import torch

from adrbench.errors import DataError
from adrbench.evaluation.inputs import as_images
from messages import assert_one_sentence

LEVELS = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
X = LEVELS / 255
Y = torch.tensor([1, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiples_of_a_level_are_kept_as_levels(dtype: torch.dtype) -> None:
    images = as_images(LEVELS.to(dtype) / 255, Y)
    assert torch.equal(images.pixels, LEVELS)
    assert images.sha256() == as_images(X.numpy(), Y.numpy().astype(np.uint16)).sha256()


def test_other_pixels_are_copied() -> None:
    x, y = X * 0.99, Y.clone()
    images = as_images(x, y)
    assert images.pixels.dtype == torch.float32
    x.zero_()
    y.zero_()
    assert torch.equal(images.pixels, X * 0.99)
    assert torch.equal(images.labels, Y)


def test_a_rounding_error_above_one_is_not_outside_the_range() -> None:
    assert as_images(torch.full((1, 1, 2, 2), 1 + 1e-12).double(), Y[:1]).pixels.max() == 255


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X * 255, r"x ranges from 0 to 23: give pixels in \[0, 1\], such as x / 255\."),
        (X * 3 - 0.1, r"x ranges from -0.1 to .*, and put a normalization inside the model\."),
        (X.to(torch.complex64), "x has type complex64: give floating-point images"),
        (LEVELS.to(torch.uint16), "x has type uint16: give floating-point images"),
        (X.bool(), "x has type bool: give floating-point images"),
        (X[0], r"x has shape \(1, 3, 4\): give at least one image"),
        (X[:1], "x has 1 images but y has 2 labels: the numbers must be equal"),
    ],
)
def test_images_that_are_no_pixels(x: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        as_images(x, Y)
    assert_one_sentence(str(caught.value))
