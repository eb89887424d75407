"""The device to compute on, and its memory format."""

import torch

from adrbench.errors import AdrbenchError, UsageError, argument

#: The memory format of models and batches of shape (N, C, H, W): the channels of a pixel are
#: adjacent, which is faster on CPUs and on the tensor cores of GPUs.
IMAGE_FORMAT = torch.channels_last


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device called `name`; "auto" is a GPU if there is one, else the CPU.

    Of several processes on this machine, `local_rank` is the rank of this one and the index of
    its GPU.

    Raises:
        UsageError: for an unknown device, or one GPU for several processes.
        AdrbenchError: when this machine has no such device, or fewer GPUs than processes.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank is not None and name.startswith("cuda"):
        if name != "cuda":
            raise UsageError(f"device is {name!r}: with several processes, choose cuda or cpu.")
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}: choose auto, cpu, cuda or cuda:K.")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local_rank is not None and local_rank >= found > 0:
            raise AdrbenchError(
                f"there are more processes than the {found} available CUDA devices: give torchrun "
                f"--nproc-per-node {found}."
            )
        if not 0 <= (device.index or 0) < found:
            raise AdrbenchError(
                f"device {name} was requested, but PyTorch finds {found} CUDA devices: "
                f"use {argument('device', 'cpu')}, or install matching versions of PyTorch "
                "and the driver."
            )
    return device
