"""Make the published tables: train, attack and report a whole matrix of runs.

    python -m benchmarks.reproduce                    # every study that needs no GPU
    python -m benchmarks.reproduce digits             # one of them
    python -m benchmarks.reproduce --list             # which there are, and what is done of each
    python -m benchmarks.reproduce --check --out DIR  # attack kept weights again: same verdicts?

Every piece is a command of `adrbench`. What is done is skipped, what was interrupted goes on: give
the same command again. Records, kept weights and RESULTS.md, the report on them, go to --out; runs,
and what each command said, to --runs.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from adrbench.errors import unknown_name
from adrbench.runtime.devices import choose_device
from benchmarks.page import positive, run
from benchmarks.reproduce.check import check
from benchmarks.reproduce.jobs import Places, read_book
from benchmarks.reproduce.matrix import STUDIES, Study
from benchmarks.reproduce.work import jobs_of, reproduce

CHECKED_SUITE = "pgd-20"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "studies",
        nargs="*",
        metavar="STUDY",
        help=f"of {', '.join(STUDIES)} (default: those that need no GPU)",
    )
    for name, default, holds in (
        ("--out", "results/reproduced", "records, tables and kept weights"),
        ("--runs", "checkpoints/reproduced", "runs, and what each command said"),
        ("--data-dir", "data", "data sets; CIFAR-10 is downloaded into it"),
    ):
        text = f"{holds} (default: {default})"
        parser.add_argument(name, type=Path, default=Path(default), metavar="DIR", help=text)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--workers", type=positive, help="jobs at a time (default: one per core; 1 on a GPU)"
    )
    parser.add_argument("--list", action="store_true", help="say what is done of each, and stop")
    parser.add_argument(
        "--check", action="store_true", help="attack all kept weights in --out again, and stop"
    )
    return parser


def choose_studies(names: Sequence[str]) -> dict[str, Study]:
    """Return the studies that are named, else those that need no GPU."""
    for name in names:
        if name not in STUDIES:
            raise unknown_name("study", name, STUDIES)
    if not names:
        return {name: study for name, study in STUDIES.items() if not study.needs_gpu}
    return {name: STUDIES[name] for name in dict.fromkeys(names)}


def list_studies(studies: Mapping[str, Study], places: Places) -> None:
    """Print what each study is, and how much of it is done."""
    book = read_book(places.out)
    for name, study in studies.items():
        jobs = jobs_of({name: study}, places)
        done = [seconds for job in jobs if (seconds := job.took(book)) is not None]
        sys.stdout.write(
            f"{name}: {study.about}\n  runs: {len(study.trainings)}; {places.out} has "
            f"{len(done)} of {len(jobs)} jobs, which took {sum(done):,.0f} s\n"
        )


def check_kept(places: Places) -> int:
    """Attack kept weights again, print what came of it, return the exit code.

    Rounding on another processor may turn one verdict in a hundred.
    """
    code = 0
    for checked in check(places, CHECKED_SUITE):
        record = checked.published
        code = code or int(not checked.agrees)
        sys.stdout.write(
            f"{record.run}, {record.suite}: {record.robust_correct} of {record.n} stand, "
            f"{checked.made.robust_correct} when made again; {checked.differing} verdicts differ: "
            f"{'as it should be' if checked.agrees else 'NOT the same'}\n"
        )
        sys.stdout.flush()
    return code


def main() -> None:
    """Do what the flags ask for."""
    options = make_parser().parse_args()
    device = choose_device(options.device)
    places = Places(
        out=options.out, runs=options.runs, data_dir=options.data_dir, device=str(device)
    )
    studies = choose_studies(options.studies)
    if options.list:
        list_studies(studies if options.studies else STUDIES, places)
        return
    if options.check:
        raise SystemExit(check_kept(places))
    on_cpu = device.type == "cpu"
    cores = torch.get_num_threads()
    workers = options.workers or (cores if on_cpu else 1)
    threads = max(1, cores // workers) if on_cpu else None
    for name, study in studies.items():
        if study.needs_gpu and on_cpu:
            sys.stderr.write(f"note: {name} is made for a GPU and takes weeks on a CPU.\n")
    raise SystemExit(reproduce(studies, places, workers=workers, threads=threads))


if __name__ == "__main__":
    run(main)
