"""The flags that the benchmarks share, and how a benchmark starts and reports a user's mistake."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from adrbench.errors import AdrbenchError
from adrbench.runtime.devices import choose_device

ROUNDS, QUICK_ROUNDS = 5, 2


def make_parser(description: str | None, *, writes_json: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the shared flags; with `writes_json`, also --out and --json."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--quick", action="store_true", help="the smallest sensible sizes")
    parser.add_argument("--rounds", type=positive, help=f"{ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="let cuDNN choose kernels by trying them"
    )
    if writes_json:
        parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there")
        parser.add_argument("--json", action="store_true", help="print the JSON, not the table")
    return parser


def add_names(parser: argparse.ArgumentParser, flag: str, explanation: str) -> None:
    """Add a flag that takes names, comma-separated or repeated; its default is []."""
    parser.add_argument(flag, type=split_names, action="extend", default=[], help=explanation)


def split_names(text: str) -> list[str]:
    """Return the names in a comma-separated list; a type for flags."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    """Return a whole number above 0; a type for flags."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def fraction(text: str) -> float:
    """Return a number above 0, up to 1; a type for flags."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return number


def apply_shared_flags(options: argparse.Namespace) -> torch.device:
    """Set the number of threads, cuDNN's mode and the default of `--rounds`; return the device."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return choose_device(options.device)


def run(main: Callable[[], None]) -> None:
    """Run `main`; report an error that the user can act on as one sentence, exit code 1."""
    try:
        main()
    except (AdrbenchError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
