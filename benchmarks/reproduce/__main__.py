"""Reproduce the published tables: train, attack and report a whole matrix of runs.

    python -m benchmarks.reproduce                    # every study that needs no GPU
    python -m benchmarks.reproduce digits             # one of them
    python -m benchmarks.reproduce --list             # the studies and their progress
    python -m benchmarks.reproduce --check --out DIR  # repeat attacks on kept weights and compare

Every job is an `adrbench` command. Finished jobs are skipped and interrupted ones resumed: run the
same command again. Records, kept weights and RESULTS.md, the report on them, go to --out; runs and
the logs of all commands to --runs.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from adrbench.errors import unknown_name
from adrbench.runtime.devices import choose_device
from benchmarks.harness.command_line import positive, run
from benchmarks.reproduce.jobs import Workspace, read_index
from benchmarks.reproduce.matrix import STUDIES, Study
from benchmarks.reproduce.recheck import recheck_all
from benchmarks.reproduce.runner import make_all_jobs, reproduce

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
    for name, default, content in (
        ("--out", "results/reproduced", "records, tables and kept weights"),
        ("--runs", "checkpoints/reproduced", "runs and logs"),
        ("--data-dir", "data", "data sets; CIFAR-10 is downloaded into it"),
    ):
        text = f"{content} (default: {default})"
        parser.add_argument(name, type=Path, default=Path(default), metavar="DIR", help=text)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--workers", type=positive, help="jobs at a time (default: one per core; 1 on a GPU)"
    )
    parser.add_argument("--list", action="store_true", help="list the studies and their progress")
    parser.add_argument(
        "--check", action="store_true", help="repeat attacks on the weights kept in --out"
    )
    return parser


def choose_studies(names: Sequence[str]) -> dict[str, Study]:
    """Return the named studies, or those that need no GPU."""
    for name in names:
        if name not in STUDIES:
            raise unknown_name("study", name, STUDIES)
    if not names:
        return {name: study for name, study in STUDIES.items() if not study.needs_gpu}
    return {name: STUDIES[name] for name in dict.fromkeys(names)}


def list_studies(studies: Mapping[str, Study], workspace: Workspace) -> None:
    """Print a summary of each study and the number of finished jobs."""
    index = read_index(workspace.out)
    for name, study in studies.items():
        jobs = make_all_jobs({name: study}, workspace)
        finished = [seconds for job in jobs if (seconds := job.find_seconds(index)) is not None]
        sys.stdout.write(
            f"{name}: {study.summary}\n  {len(study.trainings)} runs; {len(finished)} of "
            f"{len(jobs)} jobs finished in {workspace.out}, in {sum(finished):,.0f} s\n"
        )


def check_kept_weights(workspace: Workspace) -> int:
    """Repeat the attacks on kept weights, print the comparisons, return the exit code."""
    code = 0
    for recheck in recheck_all(workspace, CHECKED_SUITE):
        code = code or int(not recheck.agrees)
        sys.stdout.write(f"{recheck.describe()}\n")
        sys.stdout.flush()
    return code


def main() -> None:
    """Do what the flags ask for."""
    options = make_parser().parse_args()
    device = choose_device(options.device)
    workspace = Workspace(
        out=options.out, runs=options.runs, data_dir=options.data_dir, device=str(device)
    )
    studies = choose_studies(options.studies)
    if options.list:
        list_studies(studies if options.studies else STUDIES, workspace)
        return
    if options.check:
        raise SystemExit(check_kept_weights(workspace))
    on_cpu = device.type == "cpu"
    cores = torch.get_num_threads()
    workers = options.workers or (cores if on_cpu else 1)
    threads = max(1, cores // workers) if on_cpu else None
    for name, study in studies.items():
        if study.needs_gpu and on_cpu:
            sys.stderr.write(f"note: {name} is made for a GPU and takes weeks on a CPU.\n")
    raise SystemExit(reproduce(studies, workspace, workers=workers, threads=threads))


if __name__ == "__main__":
    run(main)
