"""The hardware, the arithmetic rate that it reaches, and the arithmetic that work requires."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import adrbench
from adrbench.results.provenance import describe_software
from adrbench.runtime.arithmetic import full_precision
from benchmarks.harness.timing import Work, time_calls

#: CPU instruction sets that decide how fast bfloat16 products are.
EXTENSIONS = ("avx512f", "avx512_bf16", "amx_bf16")

#: Floating-point operations per second by precision, then by "matmul" and "convolution".
Rates = Mapping[str, Mapping[str, float]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: By device and whether to be quick: the side of two square matrices, and the shape of images
#: (N, C, H, W) for C 3x3 filters. Without bfloat16 instructions a large product takes minutes.
SIZES = {
    ("cpu", False): (2048, (16, 256, 16, 16)),
    ("cpu", True): (256, (2, 64, 16, 16)),
    ("cuda", False): (8192, (512, 512, 16, 16)),
    ("cuda", True): (8192, (512, 512, 16, 16)),
}
ATTEMPTS = {"cpu": 5, "cuda": 20}


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Return the processor, its cores and threads and, where it is used, the GPU."""
    return {
        "device": device.type,
        "cpu": read_cpuinfo("model name") or platform.processor() or platform.machine(),
        "extensions": [name for name in EXTENSIONS if name in read_cpuinfo("flags").split()],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def read_cpuinfo(name: str) -> str:
    """Return an entry of Linux's /proc/cpuinfo for the first core, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def describe_versions() -> dict[str, Any]:
    """Return the versions of adrbench and the packages it uses, and the commit of this project.

    Where there is a GPU, the versions of CUDA and cuDNN are those that PyTorch uses.
    """
    software: dict[str, Any] = asdict(describe_software())
    software["versions"]["adrbench"] = adrbench.__version__
    if torch.cuda.is_available():
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        software["versions"] |= {"cuda": torch.version.cuda, "cudnn": str(cudnn)}
    return software


def measure_rates(device: torch.device, *precisions: str, quick: bool) -> Rates:
    """Return the rates of the given precisions, by default of float32 and bfloat16."""
    return {name: measure_rate(device, DTYPES[name], quick) for name in precisions or DTYPES}


def measure_rate(device: torch.device, dtype: torch.dtype, quick: bool) -> dict[str, float]:
    """Return the highest rate in several attempts of a matrix product and a 3x3 convolution.

    The convolution is in channels_last. TF32 is off, so float32 is float32.
    """
    side, shape = SIZES[device.type, quick]
    channels = shape[1]
    with full_precision(), torch.no_grad():
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        x, weight = (
            torch.randn(size, device=device).to(dtype, memory_format=torch.channels_last)
            for size in (shape, (channels, channels, 3, 3))
        )
        matmul = find_fastest(lambda: a @ b, device)
        convolution = find_fastest(lambda: F.conv2d(x, weight, padding=1), device)
    return {
        "matmul": 2 * side**3 / matmul,
        "convolution": 2 * 9 * channels * x.numel() / convolution,
    }


def find_fastest(work: Work, device: torch.device) -> float:
    """Return the least seconds that `work` took in several attempts."""
    return min(time_calls(work, 1, device) for _ in range(ATTEMPTS[device.type]))


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations of convolutions and matrix products while it is active.

    PyTorch's FlopCounterMode counts the same but does not support `autograd.grad`.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **kwargs, out_val=result) if count else 0
        return result


def count_operations(work: Work) -> int:
    """Return the floating-point operations of convolutions and matrix products in `work`."""
    counter = OperationCounter()  # type: ignore[no-untyped-call]
    with counter:
        work()
    return int(counter.total)


def compute_share_of_floor(operations: float, rate: Mapping[str, float], seconds: float) -> float:
    """Return the share of `seconds` that `operations` take at the higher of two rates."""
    return operations / max(rate.values()) / seconds


def render_shares(shares: Mapping[str, float]) -> str:
    """Return shares of the floor as percentages, ours first."""
    return " / ".join(f"{share:.0%}" for share in shares.values())
