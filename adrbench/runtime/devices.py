"""Where to compute, and in what precision."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from adrbench.errors import AdrbenchError, UsageError

#: How models and batches lie in memory while shapes stay (N, C, H, W): with the channels of a
#: pixel side by side, which CPUs and the tensor cores of GPUs prefer.
IMAGE_FORMAT = torch.channels_last


def choose_device(name: str, process: int | None = None) -> torch.device:
    """Return the device called `name`; "auto" is a GPU where there is one, else the CPU.

    Of several processes on this machine, `process` is the number of this one, and of its GPU.

    Raises:
        UsageError: when there is no such kind of device, or all processes are to use one GPU.
        AdrbenchError: when this machine has none of that kind, or fewer than processes.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if process is not None and name.startswith("cuda"):
        if name != "cuda":
            raise UsageError(f"device is {name!r}: several processes take --device cuda or cpu.")
        name = f"cuda:{process}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}: choose auto, cpu, cuda or cuda:K.")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if process is not None and process >= found > 0:
            raise AdrbenchError(
                f"there are more processes than the {found} CUDA devices here: give torchrun "
                f"--nproc-per-node {found}."
            )
        if not 0 <= (device.index or 0) < found:
            raise AdrbenchError(
                f"device {name} was asked for, and PyTorch sees {found} CUDA devices here: "
                "use --device cpu, or install a PyTorch and a driver that match."
            )
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 arithmetic on GPUs at float32: TF32 off for products and convolutions."""
    # Not the newer fp32_precision switches: with those set per operator, torch 2.15 raises where
    # anybody asks for cudnn.allow_tf32.
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    _allow_tf32(switches, [False] * len(switches))
    try:
        yield
    finally:
        _allow_tf32(switches, before)


def _allow_tf32(switches: Sequence[Any], values: Sequence[bool]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")  # some versions advertise the newer way
        for switch, value in zip(switches, values, strict=True):
            switch.allow_tf32 = value
