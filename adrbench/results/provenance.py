"""Provenance of a result: package versions, the commit of this project, and the machine."""

import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from adrbench.registry import Kind, describe_plugins
from adrbench.results.software import Software

if TYPE_CHECKING:
    import torch

UNKNOWN_VERSION = "unknown"

#: Packages whose versions are recorded; each is imported by the name of its distribution.
PACKAGES = (
    "adrbench",
    "torch",
    "torchvision",
    "numpy",
    "pyautoattack",
    "autoattack",
    "robustbench",
    "timm",
)


#: Stands for no names at all.
NOTHING: Mapping[Kind, Iterable[str]] = MappingProxyType({})


def describe_software(used: Mapping[Kind, Iterable[str]] = NOTHING) -> Software:
    """Return the versions of the packages used, and the commit this project was run from.

    `used` holds the names by which architectures, suites, data sets and method components were
    chosen; those of plugins are described.
    """
    versions = {"python": platform.python_version()}
    versions |= {name: package_version(name) for name in PACKAGES if is_importable(name)}
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no", ".") if commit else None
    return Software(
        versions=versions,
        commit=commit,
        dirty=None if status is None else bool(status),
        plugins=describe_plugins(used),
    )


def is_importable(name: str) -> bool:
    """Return whether the top-level package `name` is imported, or could be."""
    return name in sys.modules or find_spec(name) is not None


def package_version(name: str) -> str:
    """Return the version of an installed distribution, "unknown" where its metadata is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return UNKNOWN_VERSION


def describe_device(device: "torch.device") -> str:
    """Return the name of a GPU, or of the processor with its number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}"


def now() -> str:
    """Return the current time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _git(*arguments: str) -> str | None:
    """Return the output of git in the checkout of this package, or None outside of one."""
    here = Path(__file__).resolve().parents[1]  # of all of adrbench, not of this folder alone
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
