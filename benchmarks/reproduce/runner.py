"""Runs the unfinished jobs of a matrix, then writes the report on all of its records."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from adrbench.errors import AdrbenchError
from adrbench.runtime.files import check_writable, write_atomically
from benchmarks.harness.processes import environment
from benchmarks.reproduce.jobs import Job, RecordIndex, Workspace, make_jobs, read_index
from benchmarks.reproduce.matrix import Study
from benchmarks.reproduce.process_pool import ProcessPool, RunningJob, explain_failure
from benchmarks.reproduce.progress import Display, Estimate
from benchmarks.reproduce.subsets import prepare_datasets

REPORT = "RESULTS.md"
#: The exit code after a signal is this plus the signal's number.
SIGNAL_EXIT = 128

Studies = Mapping[str, Study]


def make_all_jobs(studies: Studies, workspace: Workspace) -> list[Job]:
    """Return the jobs of `studies`, whose records go to a directory per study."""
    return [
        job
        for name, study in studies.items()
        for job in make_jobs(study, replace(workspace, out=workspace.out / name))
    ]


def reproduce(studies: Studies, workspace: Workspace, *, workers: int, threads: int | None) -> int:
    """Run the unfinished jobs of `studies`, write the report, and return the exit code.

    Raises:
        AdrbenchError: when a directory cannot be written or the report fails.

    """
    check_writable(workspace.out)
    check_writable(workspace.runs)
    failures = []
    available = {}
    for name, study in studies.items():
        try:
            prepare_datasets({one.dataset for one in study.trainings}, workspace.data_dir)
            available[name] = study
        except AdrbenchError as error:
            failures.append(f"{name} is skipped: {error}")
            sys.stderr.write(f"error: {failures[-1]}\n")
    jobs, index = make_all_jobs(available, workspace), read_index(workspace.out)
    estimate = Estimate(workers)
    for job in jobs:
        estimate.add(job, job.find_seconds(index))
    pending = choose_pending(jobs, index)
    pool = ProcessPool(workers=workers, threads=threads, logs=workspace.runs / "logs")
    console, finished = Console(stderr=True), len(jobs) - len(pending)
    display = Display(console, pool, estimate, finished=finished, total=len(jobs))
    failures += run_jobs(pool, pending, workspace, display)
    if pool.skipped:
        failures.append(f"{len(pool.skipped)} jobs are skipped because a job they need failed")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    if read_index(workspace.out).attacks:
        write_report(workspace)
    if pool.stopped_by is not None:
        left = f"{len(jobs) - display.finished} of {len(jobs)} jobs left"
        sys.stderr.write(f"stopped with {left}: run the same command again to resume.\n")
        return SIGNAL_EXIT + pool.stopped_by
    return 1 if failures else 0


def choose_pending(jobs: Sequence[Job], index: RecordIndex) -> list[Job]:
    """Return the unfinished jobs in order.

    A finished job is repeated if its output file is gone and a pending job reads it.
    """
    needed: set[str] = set()
    pending = []
    for job in reversed(jobs):
        is_lost = job.name in needed and job.output is not None and not job.output.exists()
        is_finished = job.find_seconds(index) is not None
        if not is_finished or is_lost:
            more = job.again if is_finished else ()
            pending.append(replace(job, arguments=(*job.arguments, *more)))
            needed.add(job.needs)
    return pending[::-1]


def run_jobs(
    pool: ProcessPool, jobs: Sequence[Job], workspace: Workspace, display: Display
) -> list[str]:
    """Run `jobs` and return their failures, except those caused by a signal."""
    failures = []
    with display.live(), pool.forwarding_signals():
        for ended in pool.run(jobs):
            ended.failure = find_failure(ended, workspace)
            if ended.failure and pool.stopped_by is None:
                failures.append(f"{ended.job.name}: {ended.failure}")
            display.print_ended(ended)
    return failures


def find_failure(ended: RunningJob, workspace: Workspace) -> str:
    """Return why a job failed, or ""."""
    if ended.process.returncode:
        return explain_failure(ended)
    if ended.job.find_seconds(read_index(workspace.out)) is None:
        return f"it exited with 0, but {workspace.out} does not hold its records"
    return ""


def write_report(workspace: Workspace) -> None:
    """Write the output of `adrbench report` on all records to REPORT, and print its path."""
    command = ["-m", "adrbench", "report", str(workspace.out), "--format", "markdown"]
    done = subprocess.run(
        [sys.executable, *command], env=environment(), stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise AdrbenchError(f"`adrbench report {workspace.out}` failed")
    page = workspace.out / REPORT
    write_atomically(page, done.stdout)
    sys.stdout.write(f"{page}\n")
