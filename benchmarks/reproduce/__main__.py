"""Make the published tables: train, attack and report a whole matrix of runs.

    python -m benchmarks.reproduce                    # every study that needs no GPU
    python -m benchmarks.reproduce digits             # one of them
    python -m benchmarks.reproduce --list             # which there are, and what is left of each
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

from adrbench.devices import choose_device
from adrbench.errors import unknown_name
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
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, default=Path("results/reproduced"))
    parser.add_argument("--runs", type=Path, default=Path("checkpoints/reproduced"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--workers", type=positive, help="jobs at a time (default: one per core; 1 on a GPU)"
    )
    parser.add_argument("--list", action="store_true", help="say what there is to do, and stop")
    parser.add_argument("--check", action="store_true", help="attack the kept weights in --out")
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
            f"{name}: {study.about}\n  {len(study.trainings)} runs; {len(done)} of {len(jobs)} "
            f"jobs done in {places.out}, in {sum(done):,.0f} s\n"
        )


def check_kept(places: Places) -> int:
    """Attack kept weights again and print what came of it; return the exit code."""
    code = 0
    for checked in check(places, CHECKED_SUITE):
        record, differing = checked.published, checked.differing
        code = code or int(differing > 0)
        sys.stdout.write(
            f"{record.run}, {record.suite}: {record.robust_correct} of {record.n} stand, "
            f"{checked.made.robust_correct} when made again; {differing} verdicts differ\n"
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
