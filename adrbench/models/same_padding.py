"""TensorFlow's SAME padding for 3x3 convolutions, which DeepMind's networks are built on."""

import torch.nn.functional as F
from torch import Tensor


def pad_same(x: Tensor, stride: int) -> Tensor:
    """Pad (N, C, H, W) so that a 3x3 convolution of stride 1 or 2 returns ceil(H / stride) rows.

    Stride 1 pads one pixel all round. Stride 2 pads right and bottom, and left and top only where
    the size is odd: every image size passes, and even ones pad as the published networks do.
    """
    height, width = x.shape[-2:]
    top, left = (1, 1) if stride == 1 else (height % 2, width % 2)
    return F.pad(x, (left, 1, top, 1))
