"""TensorFlow's SAME padding for 3x3 convolutions, which DeepMind's networks use."""

import torch.nn.functional as F
from torch import Tensor


def pad_same(x: Tensor, stride: int) -> Tensor:
    """Pad (N, C, H, W) so that a 3x3 convolution of stride 1 or 2 returns ceil(H / stride) rows.

    Stride 1 pads one pixel on each side. Stride 2 pads right and bottom, and left and top only if
    the size is odd. Any image size works, and even sizes are padded as in the published networks.
    """
    height, width = x.shape[-2:]
    top, left = (1, 1) if stride == 1 else (height % 2, width % 2)
    return F.pad(x, (left, 1, top, 1))
