"""Every benchmark in turn, each in a process of its own, and one page of all their tables.

    python -m benchmarks.all [--quick] [--device cpu] [--npz cifar10.npz] [--only startup,report]

Writes benchmarks/results/HARDWARE/NAME.json and README.md beside them; with --quick, whose figures
say little, into HARDWARE-quick.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from adrbench.runtime.devices import choose_device
from benchmarks import page
from benchmarks.machine import describe_hardware
from benchmarks.processes import ROOT

NAMES = ("train_step", "epoch", "attack_gradient", "autoattack", "report", "startup")
RESULTS = ROOT / "benchmarks" / "results"
#: Flags that only the benchmark of AutoAttack has.
OF_AUTOATTACK = ("npz", "weights")


def make_slug(hardware: dict[str, Any], quick: bool) -> str:
    """Return a directory name for the hardware that computes."""
    name = hardware["gpu"] or f"{hardware['cpu']} {hardware['cores']} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{slug}-quick" if quick else slug


def pass_on(options: argparse.Namespace, name: str) -> list[str]:
    """Return the flags to run a benchmark with."""
    flags = ["--device", options.device]
    for flag in ("rounds", "threads", *(OF_AUTOATTACK if name == "autoattack" else ())):
        if getattr(options, flag) is not None:
            flags += [f"--{flag}", str(getattr(options, flag))]
    switches = {"--quick": options.quick, "--cudnn-benchmark": options.cudnn_benchmark}
    return [*flags, *(flag for flag, is_on in switches.items() if is_on)]


def run(name: str, flags: list[str], file: Path) -> bool:
    """Run a benchmark, let it print its table, keep its JSON in `file`; tell whether it could."""
    line = [sys.executable, "-m", f"benchmarks.{name}", *flags, "--out", str(file)]
    return subprocess.run(line, cwd=ROOT, check=False).returncode == 0


def write_page(directory: Path) -> None:
    """Write a page of every result in a directory, in our order."""
    files = [directory / f"{name}.json" for name in NAMES]
    documents = [json.loads(file.read_text("utf-8")) for file in files if file.exists()]
    sections = "\n".join(page.render(document) for document in documents)
    title = f"# {page.render_hardware(documents[0]['hardware'])}"
    how = "Made by `python -m benchmarks.all`; [how to read it](../../README.md)."
    (directory / "README.md").write_text(f"{title}\n\n{how}\n\n{sections}", "utf-8")


def main() -> None:
    """Run what the flags ask for; exit with 1 when a benchmark failed."""
    parser = page.make_shared_parser(__doc__)
    page.add_names(parser, "--only", f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--npz", type=Path, help="real images for autoattack")
    parser.add_argument("--weights", type=Path, help="a checkpoint for autoattack")
    parser.add_argument("--directory", type=Path, help="write there instead")
    options = parser.parse_args()
    unknown = set(options.only) - set(NAMES)
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: choose of {', '.join(NAMES)}")
    for name in OF_AUTOATTACK:
        path = getattr(options, name)
        setattr(options, name, path and path.resolve())
    hardware = describe_hardware(choose_device(options.device))
    directory = options.directory or RESULTS / make_slug(hardware, options.quick)
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or NAMES:
        if not run(name, pass_on(options, name), directory.resolve() / f"{name}.json"):
            failed.append(name)
        sys.stdout.write("\n")
        sys.stdout.flush()
    if any((directory / f"{name}.json").exists() for name in NAMES):
        write_page(directory)
        sys.stdout.write(f"written to {directory}\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    page.run(main)
