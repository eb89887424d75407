"""Peak memory of a block of code, above what was in use before it."""

import ctypes
import gc
from pathlib import Path
from typing import Self

import torch

MIB = 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: Writing this to CLEAR resets the peak of the resident memory.
RESET_PEAK = "5"


class PeakMemory:
    """A context manager that measures the peak memory in MiB, `peak_mib`.

    On a GPU this is the peak of PyTorch's allocations; `reserved_mib` is the growth of the memory
    that PyTorch reserves, including the pools of CUDA graphs. On the CPU it is the peak of the
    resident memory, and None on systems other than Linux.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mib: float | None = None
        self.reserved_mib: float | None = None

    def __enter__(self) -> Self:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before: float | None = torch.cuda.memory_allocated(self.device)
            self._reserved = torch.cuda.memory_reserved(self.device)
        else:
            release_free_memory()
            self._before = read_status("VmRSS") if reset_peak() else None
        return self

    def __exit__(self, *failure: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peak: float | None = torch.cuda.max_memory_allocated(self.device)
            reserved = torch.cuda.memory_reserved(self.device) - self._reserved
            self.reserved_mib = round(reserved / MIB, 1)
        else:
            peak = read_status("VmHWM")
        if peak is not None and self._before is not None:
            self.peak_mib = round(max(0.0, peak - self._before) / MIB, 1)


def reset_peak() -> bool:
    """Reset the peak of the resident memory; return whether the system can."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def read_status(name: str) -> float | None:
    """Return a size of this process in bytes from Linux's /proc, or None."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return float(sizes[0]) * 1024 if sizes else None


def release_free_memory() -> None:
    """Return free memory of the C library to the system, so that no contender reuses it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
