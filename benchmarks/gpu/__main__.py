"""What matters on a GPU, in at most nine minutes, the most important first, without a network.

    python -m benchmarks.gpu [--weights resnet18.pt] [--images FOLDER] [--minutes 9] [--out DIR]

Writes GPU.md and gpu.json to benchmarks/results/HARDWARE/ after every row, so that a run that is
killed keeps what it measured. Without --weights and --images, AutoAttack attacks the undefended
network of the official package on random images. `--device cpu --quick` runs every part in tiny
sizes, to check that it runs.
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from adrbench.errors import UsageError
from adrbench.results.provenance import now
from adrbench.runtime.files import write_atomically
from benchmarks.all import RESULTS, make_slug
from benchmarks.gpu import BEGAN, autoattack, gradients, rounding, training
from benchmarks.gpu.sizes import SIZES, Bench
from benchmarks.harness import command_line, document
from benchmarks.harness.hardware import describe_hardware, describe_versions
from benchmarks.harness.parts import Part, Section, print_now, run_parts

SCHEMA = 1
PAGE, FIGURES = "GPU.md", "gpu.json"
MINUTES = 9.0
WIDTH = 120


def list_parts(bench: Bench) -> dict[str, Part]:
    """Return the parts by name, the most important first; the last has what the others leave."""
    load = cache(lambda: autoattack.load_target(bench))
    parts = (
        Part(
            name="training step",
            compared=training.STEPS_COMPARED,
            share=0.38,
            measurements=lambda: training.list_steps(bench),
        ),
        Part(
            name="frozen gradients",
            compared=gradients.describe(bench),
            share=0.06,
            measurements=lambda: gradients.list_gradients(bench),
        ),
        Part(
            name="AutoAttack",
            compared=autoattack.describe(bench),
            share=0.42,
            measurements=lambda: autoattack.list_autoattack(bench, load()),
        ),
        Part(
            name="validation",
            compared=training.VALIDATION_COMPARED,
            share=0.06,
            measurements=lambda: training.list_epochs(bench),
        ),
        Part(
            name="wide network",
            compared=training.WIDE_COMPARED,
            share=0.06,
            measurements=lambda: training.list_wide_steps(bench),
        ),
        Part(
            name="rounding",
            compared=rounding.COMPARED,
            share=0.02,
            measurements=lambda: rounding.list_roundings(bench, load()),
        ),
    )
    return {part.name: part for part in parts}


def make_document(
    settings: Mapping[str, Any], hardware: Mapping[str, Any], sections: Sequence[Section]
) -> dict[str, Any]:
    """Return what is known so far as plain JSON values."""
    return {
        "schema": SCHEMA,
        "benchmark": "gpu",
        "created": now(),
        "hardware": hardware,
        "software": describe_versions(),
        "settings": settings,
        "sections": [section.to_json() for section in sections],
    }


def render(written: Mapping[str, Any]) -> str:
    """Return the page of a document."""
    title = f"# {document.render_hardware(written['hardware'])}"
    how = "Made by `make bench-gpu`; [how to read it](../../README.md#on-a-gpu)."
    software = f"{document.render_software(written['software'])}, {written['created'][:10]}."
    settings = "; ".join(f"{name} {value}" for name, value in written["settings"].items())
    sections = map(render_section, written["sections"])
    return "\n\n".join([title, how, software, f"{settings}.", *sections]) + "\n"


def render_section(section: Mapping[str, Any]) -> str:
    """Return a section of the page: its table, and in a line each what is missing."""
    cells = [row["cells"] for row in section["rows"]]
    table = document.render_table(cells) if cells else ""
    problems = "\n".join(f"- {problem}" for problem in section["problems"])
    took = f"Took {section['seconds']:.0f} s of at most {section['limit_seconds']:.0f}."
    title = f"## {section['name']}"
    compared = textwrap.fill(section["compared"], WIDTH)
    parts = [title, compared, table, problems, took]
    return "\n\n".join(filter(None, parts))


def parse_options() -> argparse.Namespace:
    """Return the flags; exits where they are wrong."""
    parser = command_line.make_parser(__doc__, writes_json=False)
    parser.add_argument("--weights", type=Path, help="a checkpoint, or a state dict of ResNet-18")
    parser.add_argument("--images", type=Path, help="test images: a folder or an .npz file")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="in all (default: 9)")
    parser.add_argument("--share", type=command_line.fraction, help="of AutoAttack's iterations")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write there instead")
    command_line.add_names(parser, "--only", "names of parts (default: all)")
    options = parser.parse_args()
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes {options.minutes}: give a number above 0")
    return options


def make_bench(options: argparse.Namespace) -> Bench:
    """Return what the flags ask for.

    Raises:
        UsageError: without a GPU, unless a quick check of the CPU was asked for, and for files
            that do not exist.

    """
    device = command_line.apply_shared_flags(options)
    if device.type != "cuda" and not (options.device == "cpu" and options.quick):
        raise UsageError(
            "PyTorch finds no GPU, which this benchmark measures: run it on a machine that has "
            "one, or give --device cpu --quick to check that it runs."
        )
    for path in (options.weights, options.images):
        if path and not path.exists():
            raise UsageError(f"{path} does not exist: give the path of a file or a folder.")
    sizes = SIZES[device.type, options.quick]
    return Bench(
        device=device,
        sizes=replace(sizes, share=options.share or sizes.share),
        rounds=options.rounds,
        weights=options.weights,
        images=options.images,
    )


def main() -> None:
    """Measure, and write the page; exit with 1 when a measurement failed."""
    options = parse_options()
    bench = make_bench(options)
    parts = list_parts(bench)
    if unknown := set(options.only) - set(parts):
        raise UsageError(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(parts)}.")
    hardware = describe_hardware(bench.device)
    out = options.out or RESULTS / make_slug(hardware, options.quick)
    settings = {"rounds": bench.rounds, "minutes": f"{options.minutes:g}"}
    settings |= {"quick": "yes"} if options.quick else {}

    def save(sections: Sequence[Section]) -> None:
        written = make_document(settings, hardware, sections)
        write_atomically(out / FIGURES, (json.dumps(written, indent=1) + "\n").encode())
        write_atomically(out / PAGE, render(written).encode())

    sections = run_parts(
        [parts[name] for name in options.only or parts],
        seconds=60 * options.minutes - (time.perf_counter() - BEGAN),
        device=bench.device,
        save=save,
    )
    sys.stdout.write(f"\n{(out / PAGE).read_text('utf-8')}")
    print_now(f"\nwritten to {out}")
    if failed := [section.name for section in sections if section.has_failed]:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    command_line.run(main)
