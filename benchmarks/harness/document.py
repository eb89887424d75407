"""The result of a benchmark: a JSON document, and its rendering as a section of Markdown."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adrbench.results.provenance import now
from benchmarks.harness.hardware import Rates, describe_hardware, describe_versions
from benchmarks.harness.timing import Comparison

SCHEMA = 1


def publish(
    name: str,
    rows: Sequence[Comparison],
    options: argparse.Namespace,
    *,
    compared: str,
    settings: Mapping[str, Any],
    device: torch.device,
    rates: Rates | None = None,
) -> None:
    """Write the JSON document to `--out` and print it, or its rendering, to stdout.

    `compared` describes what is compared with what.
    """
    shared = {"rounds": options.rounds, "quick": options.quick}
    shared |= {"cudnn.benchmark": True} if options.cudnn_benchmark else {}
    document = {
        "schema": SCHEMA,
        "benchmark": name,
        "compared": compared,
        "created": now(),
        "hardware": describe_hardware(device),
        "software": describe_versions(),
        "settings": {**settings, **shared},
        "rates": rates or {},
        "rows": [row.to_json() for row in rows],
    }
    text = json.dumps(document, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, "utf-8")
    sys.stdout.write(text if options.json else render(document))


def render(document: Mapping[str, Any]) -> str:
    """Return a document as a section of Markdown."""
    provenance = (
        f"{render_hardware(document['hardware'])}.\n"
        f"{render_software(document['software'])}, {document['created'][:10]}."
    )
    yes_no = {True: "yes", False: "no"}
    facts = [
        f"{name} {yes_no[value] if isinstance(value, bool) else value}"
        for name, value in document["settings"].items()
    ]
    facts += [
        f"{name} {max(rate.values()) / 1e9:,.0f} GFLOP/s"
        for name, rate in document["rates"].items()
    ]
    table = render_table([make_cells(row) for row in document["rows"]])
    title = f"## {document['benchmark']}"
    parts = [title, document["compared"], provenance, "; ".join(facts) + ".", table]
    return "\n\n".join(parts) + "\n"


def render_hardware(hardware: Mapping[str, Any]) -> str:
    """Return the machine in one line."""
    extensions = ", ".join(hardware["extensions"])
    cpu = f"{hardware['cpu']}{f' ({extensions})' if extensions else ''}"
    gpu = f"{hardware['gpu']}; " if hardware["gpu"] else ""
    return f"{gpu}{cpu}, cores {hardware['cores']}, threads {hardware['threads']}"


def render_software(software: Mapping[str, Any]) -> str:
    """Return the main versions and the commit in one line."""
    versions = software["versions"]
    shown = ("python", "torch", "cuda", "cudnn", "adrbench", "pyautoattack")
    parts = [f"{name} {versions[name]}" for name in shown if name in versions]
    if software["commit"]:
        parts.append(f"commit {software['commit'][:7]}{' (changed)' if software['dirty'] else ''}")
    return ", ".join(parts)


def make_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a row by column."""
    ours, reference, *others = row["contenders"]
    peaks = [contender["peak_mib"] for contender in (ours, reference)]
    return {
        "": row["name"],
        ours["name"]: render_seconds(ours["median_seconds"]),
        reference["name"]: render_seconds(reference["median_seconds"]),
        "ratio": f"{row['ratio']:.2f}",
        "by round": f"{row['round_ratio_min']:.2f} to {row['round_ratio_max']:.2f}",
        **{f"ratio, {other['name']}": f"{row['ratios'][other['name']]:.2f}" for other in others},
        "peak MiB": " / ".join("-" if peak is None else f"{peak:,.0f}" for peak in peaks),
        **row["shown"],
    }


def render_seconds(seconds: float) -> str:
    """Return a time with three digits, in s, ms or us."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms")
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def render_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of cells by column as an aligned Markdown table, figures to the right."""
    columns = list(dict.fromkeys(c for row in sorted(rows, key=len, reverse=True) for c in row))
    lines = [columns, *([row.get(column, "-") for column in columns] for row in rows)]
    first, *others = (max(3, *map(len, column)) for column in zip(*lines, strict=True))
    lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "\n".join(
        f"| {' | '.join([head.ljust(first), *map(str.rjust, cells, others)])} |"
        for head, *cells in lines
    )
