"""What ADR does to labels, on a teacher whose outputs are known."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from adrbench.data import Images
from adrbench.errors import AdrbenchError
from adrbench.evaluation.rectified_labels import (
    LONGEST_SIDE,
    RectifiedLabels,
    find_disagreeing,
    find_moved,
    find_pairs,
    rectify_labels,
    shrink,
)
from adrbench.results.inspection import ClassPair, unpack_pixels
from messages import assert_one_sentence

ANNEALED = {"temperature": 2.0, "interpolation": 0.5}
CPU = torch.device("cpu")


class Table(nn.Module):
    """A teacher that returns row p of `logits` for an image of one pixel p."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[(255 * x).round().long().flatten()]


def one_pixel(labels: list[int]) -> Images:
    """Return images of one pixel, whose value is their index."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Images(pixels, torch.tensor(labels))


#: At temperature 2 the rows are (2, 1, 1) / 4, (1, 2, 1) / 4 and (1, 2, 1) / 4.
TEACHER = Table(2 * torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]).log())
IMAGES = one_pixel([0, 0, 1])


def rectified(
    batch_size: int = 2, teacher: nn.Module = TEACHER, annealed: Mapping[str, float] = ANNEALED
) -> RectifiedLabels:
    return rectify_labels(
        teacher,
        IMAGES,
        annealed,
        num_classes=3,
        batch_size=batch_size,
        device=CPU,
        on_batch=lambda done, total: None,
    )


def test_a_worked_example_of_three_classes() -> None:
    """Two images of class 0, the second of which the teacher takes for class 1; one of class 1.

    Where the teacher is right, lambda is 1/2: the labels are (2, 1, 1) / 8 + (1/2, 0, 0) =
    (6, 1, 1) / 8 and (1, 6, 1) / 8. For the second image, max P - P_y is 1/4, so that lambda is
    1/4 and the label (1, 2, 1) / 16 + (3/4, 0, 0) = (13, 2, 1) / 16. The mean of the labels of
    class 0 is therefore (25, 4, 3) / 32. There is no image of class 2.
    """
    found = rectified()
    expected = [[25 / 32, 4 / 32, 3 / 32], [1 / 8, 6 / 8, 1 / 8], [0, 0, 0]]
    assert torch.tensor(found.means).numpy() == pytest.approx(torch.tensor(expected).numpy())
    assert found.class_counts.tolist() == [2, 1, 0]
    assert found.label_probability.tolist() == pytest.approx([6 / 8, 13 / 16, 6 / 8])
    assert found.predicted.tolist() == [0, 1, 1]
    assert found.predicted_probability.tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 2])
    right = -(6 / 8 * math.log(6 / 8) + 2 * (1 / 8) * math.log(1 / 8))
    wrong = -sum(p / 16 * math.log(p / 16) for p in (13, 2, 1))
    assert found.entropy.tolist() == pytest.approx([right, wrong, right])


def test_the_pairs_of_the_worked_example() -> None:
    """Class 2 has no labels, so its pairs have the mass of one direction only."""
    assert find_pairs(rectified()) == [
        ClassPair(first=0, second=1, first_to_second=0.125, second_to_first=0.125, mass=0.125),
        ClassPair(first=1, second=2, first_to_second=0.125, second_to_first=0.0, mass=0.125),
        ClassPair(first=0, second=2, first_to_second=0.09375, second_to_first=0.0, mass=0.09375),
    ]


def test_the_images_of_the_worked_example() -> None:
    found = rectified()
    moved = find_moved(found, IMAGES)
    assert [image.index for image in moved] == [0, 2, 1]
    assert [unpack_pixels(image.pixels, (1, 1, 1)).item() for image in moved] == [0, 2, 1]
    count, disagreeing = find_disagreeing(found, IMAGES)
    assert count == 1
    (image,) = disagreeing
    assert (image.index, image.label, image.predicted) == (1, 0, 1)
    assert image.label_probability == pytest.approx(13 / 16)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    assert torch.equal(rectified(batch_size).mean_labels, rectified().mean_labels)


def test_without_interpolation_labels_stay_as_they_are() -> None:
    found = rectified(annealed={"temperature": 2.0, "interpolation": 0.0})
    assert found.means == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert found.entropy.tolist() == [0, 0, 0]
    assert find_pairs(found) == []


def test_the_surest_of_the_images_whose_teacher_disagrees_come_first() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 5.0, 0.0]])
    found = rectified(teacher=Table(logits))
    count, disagreeing = find_disagreeing(found, IMAGES)
    assert (count, [image.index for image in disagreeing]) == (2, [1, 0])


def test_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AdrbenchError) as caught:
        rectified(teacher=Table(torch.full((3, 3), math.nan)))
    assert_one_sentence(str(caught.value), "not finite", "inspect another checkpoint")


def test_large_images_are_kept_reduced() -> None:
    pixels = torch.full((2, 3, 2 * LONGEST_SIDE, LONGEST_SIDE), 200, dtype=torch.uint8)
    reduced = shrink(pixels)
    assert reduced.shape == (2, 3, LONGEST_SIDE, LONGEST_SIDE // 2)
    assert (reduced == 200).all()
    assert shrink(reduced) is reduced
