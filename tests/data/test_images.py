"""Sets of images, and their fingerprint."""

import torch

from adrbench.data import Images


def test_the_sha256_depends_on_pixels_labels_shape_and_order() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    labels = torch.tensor([0, 1])
    base = Images(pixels, labels)
    others = [
        Images(pixels + 1, labels),
        Images(pixels, labels + 1),
        Images(pixels.view(2, 2, 3, 2), labels),
        base.take(torch.tensor([1, 0])),
        base.first(1),
    ]
    assert len({images.sha256() for images in (base, *others)}) == 6
    strided = Images(pixels.to(memory_format=torch.channels_last), labels)
    assert strided.sha256() == base.sha256()
