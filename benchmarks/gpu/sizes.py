"""What the measurements of a GPU share, and their sizes."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adrbench.config.settings import AttackConfig


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    `steps` are those of the attack in training. `images` are attacked by AutoAttack, with `share`
    of its iterations and queries; `slice_size` of them at a time are used to compare roundings. An
    epoch has `num_batches` of the first of `batch_sizes`.
    """

    arch: str = "resnet18"
    wide_arch: str = "wrn-34-10"
    batch_sizes: tuple[int, ...] = (128, 512)
    steps: int = 10
    warmup: int = 8
    gradient_batch: int = 256
    images: int = 512
    attack_batch: int = AttackConfig().batch_size
    slice_size: int = 128
    share: float = 1.0
    num_batches: int = 390
    num_val: int = 1_000


#: The name of a frozen model's memory format -> the name of the layout on the page.
LAYOUTS = {"channels_last": "channels last", "contiguous": "NCHW", "": "as it is"}
#: By device and whether to be quick.
SIZES = {("cuda", False): Sizes()}
SIZES["cuda", True] = replace(SIZES["cuda", False], images=64, share=0.1, num_batches=39)
SIZES["cpu", True] = Sizes(
    arch="small-cnn",
    wide_arch="wrn-10-1",
    batch_sizes=(4,),
    steps=1,
    warmup=1,
    gradient_batch=4,
    images=4,
    slice_size=2,
    share=0.01,
    num_batches=2,
    num_val=8,
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The device, the sizes, and the model and the images of AutoAttack, if they are given."""

    device: torch.device
    sizes: Sizes
    rounds: int
    weights: Path | None = None
    images: Path | None = None
