"""A matrix at work: what is left of it is run, and in the end the report is written."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from adrbench.cli.app import SIGNALLED
from adrbench.errors import AdrbenchError
from adrbench.runtime.files import check_writable, write_atomically
from benchmarks.processes import environment
from benchmarks.reproduce.cut import provide
from benchmarks.reproduce.jobs import Book, Job, Places, make_jobs, read_book
from benchmarks.reproduce.matrix import Study
from benchmarks.reproduce.pool import Pool, Running, why
from benchmarks.reproduce.show import Display, Estimate

PAGE = "RESULTS.md"

Studies = Mapping[str, Study]


def jobs_of(studies: Studies, places: Places) -> list[Job]:
    """Return the jobs of `studies`; each study has a directory of its own for its records."""
    return [
        job
        for name, study in studies.items()
        for job in make_jobs(study, replace(places, out=places.out / name))
    ]


def reproduce(studies: Studies, places: Places, *, workers: int, threads: int | None) -> int:
    """Run what is left of `studies`, write the report, return the exit code.

    Raises:
        AdrbenchError: when places cannot be written, or the report not be made.

    """
    check_writable(places.out)
    check_writable(places.runs)
    failures = []
    with_data = {}
    for name, study in studies.items():
        try:
            provide({one.dataset for one in study.trainings}, places.data_dir)
            with_data[name] = study
        except AdrbenchError as error:
            failures.append(f"{name} is left out: {error}")
            sys.stderr.write(f"error: {failures[-1]}\n")
    jobs, book = jobs_of(with_data, places), read_book(places.out)
    estimate = Estimate(workers)
    for job in jobs:
        estimate.learn(job, job.took(book))
    pending = choose_pending(jobs, book)
    pool = Pool(workers=workers, threads=threads, logs=places.runs / "logs")
    done = len(jobs) - len(pending)
    with Display(Console(stderr=True), estimate, done=done, total=len(jobs)) as display:
        failures += run_jobs(pool, pending, places, display)
    if pool.dropped:
        failures.append(f"{len(pool.dropped)} jobs that need one that failed were not tried")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    if read_book(places.out).attacks:
        write_report(places)
    if pool.stopped_by is not None:
        left = f"{len(jobs) - display.done} of {len(jobs)} jobs left"
        sys.stderr.write(f"stopped with {left}: the same command goes on.\n")
        return SIGNALLED + pool.stopped_by
    return 1 if failures else 0


def choose_pending(jobs: Sequence[Job], book: Book) -> list[Job]:
    """Return the jobs that have to be run, in order.

    One that was done is done again where its file is gone and a job that has to be run reads it.
    """
    needed: set[str] = set()
    pending = []
    for job in reversed(jobs):
        is_lost = job.name in needed and job.makes is not None and not job.makes.exists()
        if job.took(book) is None or is_lost:
            pending.append(job)
            needed.add(job.needs)
    return pending[::-1]


def run_jobs(pool: Pool, jobs: Sequence[Job], places: Places, display: Display) -> list[str]:
    """Run `jobs`, tell `display`, and return what went wrong, but for what a signal ended."""
    failures = []
    with pool.heeding_signals():
        for ended in pool.work(jobs):
            if ended is None:
                display.refresh(pool)
                continue
            ended.failure = judge(ended, places)
            if ended.failure and pool.stopped_by is None:
                failures.append(f"{ended.job.name}: {ended.failure}")
            display.ended(ended, pool)
    return failures


def judge(ended: Running, places: Places) -> str:
    """Return what went wrong with a job that ended, "" for nothing."""
    if ended.process.returncode:
        return why(ended)
    if ended.job.took(read_book(places.out)) is None:
        return f"it ended well, but {places.out} does not hold what it should have made"
    return ""


def write_report(places: Places) -> None:
    """Write the page of all tables, which is what `adrbench report` prints, and say where."""
    command = ["-m", "adrbench", "report", str(places.out), "--format", "markdown"]
    done = subprocess.run(
        [sys.executable, *command], env=environment(), stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise AdrbenchError(f"the report on {places.out} could not be made")
    page = places.out / PAGE
    write_atomically(page, done.stdout)
    sys.stdout.write(f"{page}\n")
