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
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from adrbench.devices import choose_device
from adrbench.errors import AdrbenchError, unknown_name
from adrbench.files import check_writable, write_atomically
from adrbench.stopping import SIGNALS
from benchmarks.page import positive, run
from benchmarks.reproduce.check import check
from benchmarks.reproduce.cut import provide
from benchmarks.reproduce.jobs import Places, make_jobs, read_book
from benchmarks.reproduce.matrix import STUDIES, Study
from benchmarks.reproduce.pool import Pool, Running, environment, error_line
from benchmarks.reproduce.show import Display, Estimate

PAGE = "RESULTS.md"
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


def list_studies(places: Places) -> None:
    """Print every study, and what is left of it."""
    book = read_book(places.out)
    for name, study in STUDIES.items():
        jobs = list(make_jobs(study, places))
        done = [seconds for job in jobs if (seconds := job.took(book)) is not None]
        sys.stdout.write(
            f"{name}: {study.about}\n  {len(study.trainings)} runs; {len(done)} of {len(jobs)} "
            f"jobs done in {places.out}, in {sum(done):,.0f} s\n"
        )


def reproduce(studies: dict[str, Study], places: Places, workers: int, threads: int | None) -> int:
    """Run what is left of `studies` and write the report; return the exit code."""
    check_writable(places.out)
    check_writable(places.runs)
    provide({one.dataset for study in studies.values() for one in study.trainings}, places.data_dir)
    book = read_book(places.out)
    jobs = [job for study in studies.values() for job in make_jobs(study, places)]
    estimate = Estimate(jobs, workers)
    pending = []
    for job in jobs:
        seconds = job.took(book)
        estimate.learn(job, seconds)
        if seconds is None:
            pending.append(job)
    pool = Pool(workers=workers, threads=threads, logs=places.runs / "logs")
    before = {number: signal.signal(number, pool.hear) for number in SIGNALS}
    console = Console(stderr=True)
    failures = []
    try:
        with Display(console, estimate, pending) as display:

            def ended(one: Running, code: int) -> None:
                failure = judge(one, code, places)
                if failure and pool.stopped_by is None:
                    failures.append(f"{one.job.name}: {failure}")
                display.ended(one, failure, pool.running)

            pool.work(pending, ended=ended, waited=lambda: display.refresh(pool.running))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if read_book(places.out).attacks:
        write_report(places.out)
    if pool.stopped_by is not None:
        left = f"{len(display.pending)} of {len(jobs)} jobs left"
        say(f"stopped with {left}: the same command goes on.")
        return 128 + pool.stopped_by
    for failure in failures:
        say(f"error: {failure}")
    return 1 if failures else 0


def judge(one: Running, code: int, places: Places) -> str:
    """Return what went wrong with a job that ended, "" for nothing."""
    if code:
        return f"{error_line(one.log).removeprefix('error: ')} (exit code {code}, see {one.log})"
    if one.job.took(read_book(places.out)) is None:
        return f"it ended well, but {places.out} does not hold what it should have made"
    return ""


def write_report(out: Path) -> None:
    """Write the page of all tables, which is what `adrbench report` prints, and say where."""
    command = ["-m", "adrbench", "report", str(out), "--format", "markdown"]
    done = subprocess.run(
        [sys.executable, *command], env=environment(None), capture_output=True, check=False
    )
    if done.returncode:
        raise AdrbenchError(done.stderr.decode("utf-8", "replace").strip())
    write_atomically(out / PAGE, done.stdout)
    sys.stdout.write(f"{out / PAGE}\n")


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


def say(text: str) -> None:
    """Say something that is no result."""
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Do what the flags ask for."""
    options = make_parser().parse_args()
    device = choose_device(options.device)
    places = Places(
        out=options.out, runs=options.runs, data_dir=options.data_dir, device=str(device)
    )
    if options.list:
        list_studies(places)
        return
    if options.check:
        raise SystemExit(check_kept(places))
    on_cpu = device.type == "cpu"
    cores = torch.get_num_threads()
    workers = options.workers or (cores if on_cpu else 1)
    threads = max(1, cores // workers) if on_cpu else None
    raise SystemExit(reproduce(choose_studies(options.studies), places, workers, threads))


if __name__ == "__main__":
    run(main)
