"""Where a figure comes from: package versions, the commit of this project, the machine."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from adrbench.results.records import Software

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "adrbench",
    "torch",
    "torchvision",
    "numpy",
    "pyautoattack",
    "autoattack",
    "robustbench",
)


def describe_software() -> Software:
    """Return the versions of what computes, and the commit this project was run from."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no", ".") if commit else None
    return Software(
        versions=versions, commit=commit, dirty=None if status is None else bool(status)
    )


def describe_device(device: "torch.device") -> str:
    """Return the device in words: the name of a GPU, or the processor and its threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}"


def now() -> str:
    """Return the present time, UTC, to the second, in ISO form."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _git(*arguments: str) -> str | None:
    """Return what git says of the checkout this package lies in, or None outside of one."""
    here = Path(__file__).resolve().parent
    if "site-packages" in here.parts:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
