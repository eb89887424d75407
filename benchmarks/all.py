"""Every benchmark in turn, each in a process of its own, and one page with all their tables.

    python -m benchmarks.all [--quick] [--device cpu] [--npz cifar10.npz] [--only startup,report]

Writes NAME.json and README.md to benchmarks/results/HARDWARE/; with --quick, whose figures are
rough, to HARDWARE-quick.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from adrbench.runtime.devices import choose_device
from benchmarks.harness import command_line, document
from benchmarks.harness.hardware import describe_hardware
from benchmarks.harness.processes import ROOT

NAMES = ("train_step", "epoch", "attack_gradient", "autoattack", "report", "page", "startup")
RESULTS = ROOT / "benchmarks" / "results"
SHARED_FLAGS = ("device", "rounds", "threads", "quick", "cudnn_benchmark")
AUTOATTACK_FLAGS = ("npz", "weights")


def make_slug(hardware: dict[str, Any], quick: bool) -> str:
    """Return a directory name for the GPU or, without one, the processor."""
    name = hardware["gpu"] or f"{hardware['cpu']} {hardware['cores']} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{slug}-quick" if quick else slug


def run_benchmark(name: str, options: argparse.Namespace, file: Path) -> bool:
    """Run a benchmark, which prints its table and writes `file`; return whether it succeeded."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(file)]
    for flag in (*SHARED_FLAGS, *(AUTOATTACK_FLAGS if name == "autoattack" else ())):
        value = getattr(options, flag)
        if value:
            command.append(f"--{flag.replace('_', '-')}")
            command += [] if value is True else [str(value)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def write_page(directory: Path) -> None:
    """Write a page of every result in a directory, in the order of NAMES."""
    files = [directory / f"{name}.json" for name in NAMES]
    documents = [json.loads(file.read_text("utf-8")) for file in files if file.exists()]
    if not documents:
        return
    sections = "\n".join(map(document.render, documents))
    title = f"# {document.render_hardware(documents[0]['hardware'])}"
    how = "Made by `python -m benchmarks.all`; [how to read it](../../README.md)."
    (directory / "README.md").write_text(f"{title}\n\n{how}\n\n{sections}", "utf-8")
    sys.stdout.write(f"written to {directory}\n")


def main() -> None:
    """Run what the flags ask for; exit with 1 when a benchmark failed."""
    parser = command_line.make_parser(__doc__, writes_json=False)
    command_line.add_names(parser, "--only", f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--npz", type=Path, help="real images for autoattack")
    parser.add_argument("--weights", type=Path, help="a checkpoint for autoattack")
    parser.add_argument("--directory", type=Path, help="write there instead")
    options = parser.parse_args()
    if unknown := set(options.only) - set(NAMES):
        parser.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    for flag in AUTOATTACK_FLAGS:
        path = getattr(options, flag)
        setattr(options, flag, path and path.resolve())
    hardware = describe_hardware(choose_device(options.device))
    directory = options.directory or RESULTS / make_slug(hardware, options.quick)
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or NAMES:
        if not run_benchmark(name, options, directory.resolve() / f"{name}.json"):
            failed.append(name)
        sys.stdout.write("\n")
        sys.stdout.flush()
    write_page(directory)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    command_line.run(main)
