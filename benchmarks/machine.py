"""What a figure was measured on, and the arithmetic that machine is measured to reach."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import adrbench
from adrbench.results.provenance import describe_software
from adrbench.runtime.devices import full_precision
from benchmarks.harness import Work, time_calls

#: What decides how fast a processor multiplies in bfloat16.
EXTENSIONS = ("avx512f", "avx512_bf16", "amx_bf16")


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
    """Return what Linux says of the first core under `name`, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def describe_versions() -> dict[str, Any]:
    """Return the versions of what computes, and the commit of this project."""
    software: dict[str, Any] = asdict(describe_software())
    software["versions"].setdefault("adrbench", adrbench.__version__)
    return software


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The most floating-point operations a second seen in each of two large products."""

    matmul: float
    convolution: float

    @property
    def best(self) -> float:
        """The higher of the two: what stands in for the peak of the hardware."""
        return max(self.matmul, self.convolution)


@dataclass(frozen=True, kw_only=True)
class ProductSize:
    """How large the products are: a square matrix, and images (N, C, H, W) with C filters."""

    side: int
    batch: int
    channels: int
    height: int


#: By precision, "float32" or "bfloat16".
Rates = Mapping[str, Rate]

DTYPES = ("float32", "bfloat16")
SIZES = {
    "cpu": ProductSize(side=2048, batch=16, channels=256, height=16),
    "cuda": ProductSize(side=8192, batch=512, channels=512, height=16),
}
ATTEMPTS = {"cpu": 5, "cuda": 20}


def measure_rates(device: torch.device, *names: str) -> Rates:
    """Return the rate of each precision named; without names, of float32 and bfloat16."""
    return {name: matmul_rate(device, getattr(torch, name)) for name in names or DTYPES}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> Rate:
    """Measure the arithmetic rate of `device` on a matrix product and a 3x3 convolution.

    The convolution is in channels_last. TF32 is off, so float32 is float32.
    """
    size = SIZES[device.type]
    with full_precision(), torch.no_grad():
        a, b = (torch.randn(size.side, size.side, device=device).to(dtype) for _ in range(2))
        shape = (size.batch, size.channels, size.height, size.height)
        x = torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(size.channels, size.channels, 3, 3, device=device)
        weight = weight.to(dtype, memory_format=torch.channels_last)
        product = find_fastest(lambda: a @ b, device)
        convolution = find_fastest(lambda: F.conv2d(x, weight, padding=1), device)
    return Rate(
        matmul=2 * size.side**3 / product,
        convolution=2 * 9 * size.channels * x.numel() / convolution,
    )


def find_fastest(work: Work, device: torch.device) -> float:
    """Return the least seconds that `work` took in several attempts."""
    return min(time_calls(work, 1, device) for _ in range(ATTEMPTS[device.type]))
