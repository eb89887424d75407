"""What every benchmark has in common outside of timing: flags, the JSON, the printed table."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adrbench.errors import AdrbenchError
from adrbench.results.provenance import now
from adrbench.runtime.devices import choose_device
from benchmarks.harness import Row
from benchmarks.machine import Rates, describe_hardware, describe_versions

SCHEMA = 1
ROUNDS, QUICK_ROUNDS = 5, 2


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of every benchmark."""
    parser = make_shared_parser(description)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there")
    parser.add_argument("--json", action="store_true", help="print the JSON, not the table")
    return parser


def make_shared_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that say how to measure."""
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
    return parser


def split_names(text: str) -> list[str]:
    """Return the names in a comma-separated list; a type for flags."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_names(parser: argparse.ArgumentParser, flag: str, explanation: str) -> None:
    """Add a flag that takes names, comma-separated or repeated; without it the value is []."""
    parser.add_argument(flag, type=split_names, action="extend", default=[], help=explanation)


def positive(text: str) -> int:
    """Return a whole number above 0; a type for flags."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def start(options: argparse.Namespace) -> torch.device:
    """Set the number of threads and the default of `--rounds`; return the device."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    return choose_device(options.device)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; put what a user can mend into one sentence."""
    try:
        main()
    except (AdrbenchError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def describe(
    name: str,
    rows: Sequence[Row],
    *,
    compared: str,
    settings: Mapping[str, Any],
    device: torch.device,
    rates: Rates | None = None,
) -> dict[str, Any]:
    """Return the JSON document of a benchmark; `compared` says in words what stood beside what."""
    return {
        "schema": SCHEMA,
        "benchmark": name,
        "compared": compared,
        "created": now(),
        "hardware": describe_hardware(device),
        "software": describe_versions(),
        "settings": dict(settings),
        "rates": {name: vars(rate) for name, rate in (rates or {}).items()},
        "rows": [row.to_json() for row in rows],
    }


def publish(document: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Write the document where the flags say, and print it as they say."""
    text = json.dumps(document, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, "utf-8")
    sys.stdout.write(text if options.json else render(document))


def common_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that every benchmark has."""
    tried = {"cudnn.benchmark": True} if options.cudnn_benchmark else {}
    return {"rounds": options.rounds, "quick": options.quick, **tried}


def render(document: Mapping[str, Any]) -> str:
    """Return a document as a section of Markdown."""
    made = f"{render_software(document['software'])}, {document['created'][:10]}."
    machine = f"{render_hardware(document['hardware'])}.\n{made}"
    settings = [f"{name} {render_setting(value)}" for name, value in document["settings"].items()]
    rates = [
        f"{name} {max(rate.values()) / 1e9:,.0f} GFLOP/s"
        for name, rate in document["rates"].items()
    ]
    facts = "; ".join([*settings, *rates]) + "."
    table = render_table([render_row(row) for row in document["rows"]])
    parts = [f"## {document['benchmark']}", document["compared"], machine, facts, table]
    return "\n\n".join(parts) + "\n"


def render_setting(value: object) -> str:
    """Return a setting as a reader would write it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def render_hardware(hardware: Mapping[str, Any]) -> str:
    """Return the machine in one line."""
    extensions = ", ".join(hardware["extensions"])
    cpu = f"{hardware['cpu']}{f' ({extensions})' if extensions else ''}"
    gpu = f"{hardware['gpu']}; " if hardware["gpu"] else ""
    counts = [f"{name} {hardware[name]}" for name in ("cores", "threads")]
    return ", ".join([gpu + cpu, *counts])


def render_software(software: Mapping[str, Any]) -> str:
    """Return the versions in one line."""
    shown = ("python", "torch", "adrbench", "pyautoattack")
    versions = [
        f"{name} {software['versions'][name]}" for name in shown if name in software["versions"]
    ]
    if software["commit"]:
        changed = " (changed)" if software["dirty"] else ""
        versions.append(f"commit {software['commit'][:7]}{changed}")
    return ", ".join(versions)


def render_row(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a row by column."""
    ours, reference, *others = row["contenders"]
    cells = {
        "": row["name"],
        ours["name"]: render_seconds(ours["median_seconds"]),
        reference["name"]: render_seconds(reference["median_seconds"]),
        "ratio": f"{row['ratio']:.2f}",
        "by round": f"{row['round_ratio_min']:.2f} to {row['round_ratio_max']:.2f}",
    }
    for other in others:
        cells[f"ratio, {other['name']}"] = f"{row['ratios'][other['name']]:.2f}"
    peaks = [render_mib(contender["peak_mib"]) for contender in (ours, reference)]
    return {**cells, "peak MiB": " / ".join(peaks), **row["shown"]}


def render_seconds(seconds: float) -> str:
    """Return a time with three digits, in a unit that suits it."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            value = seconds * factor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{seconds * 1e6:.0f} us"


def render_mib(mib: float | None) -> str:
    """Return a size in whole MiB, or a dash."""
    return "-" if mib is None else f"{mib:,.0f}"


def render_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of cells by column as a Markdown table whose columns line up."""
    columns = list(dict.fromkeys(c for row in sorted(rows, key=len, reverse=True) for c in row))
    lines = [columns, *([row.get(column, "-") for column in columns] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    head, *body = [justify(line, widths) for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def justify(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return cells padded to their columns, names to the left and figures to the right."""
    return [
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
