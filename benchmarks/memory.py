"""Peak memory of a piece of work, above what was in use when it began."""

import ctypes
import gc
from pathlib import Path
from typing import Self

import torch

MIB = 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: What Linux resets the peak of the resident memory for.
RESET_PEAK = "5"


class PeakMemory:
    """A context whose peak memory in MiB is `peak_mib` afterwards.

    On a GPU it is the peak of PyTorch's allocations, and `reserved_mib` the growth of what PyTorch
    holds, which counts the pools of CUDA graphs too. On the CPU it is the peak of the resident
    memory; None where the system does not tell (anything but Linux).
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
            self._held = torch.cuda.memory_reserved(self.device)
        else:
            return_free_memory()
            self._before = read_status("VmRSS") if reset_peak() else None
        return self

    def __exit__(self, *failure: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peak: float | None = torch.cuda.max_memory_allocated(self.device)
            held = torch.cuda.memory_reserved(self.device) - self._held
            self.reserved_mib = round(held / MIB, 1)
        else:
            peak = read_status("VmHWM")
        if peak is not None and self._before is not None:
            self.peak_mib = round(max(0.0, peak - self._before) / MIB, 1)


def reset_peak() -> bool:
    """Forget the peak of the resident memory; tell whether the system can."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def read_status(name: str) -> float | None:
    """Return a size in bytes that Linux keeps of this process, or None."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return float(sizes[0]) * 1024 if sizes else None


def return_free_memory() -> None:
    """Have the C library give back what it keeps, so that one contender does not reuse it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
