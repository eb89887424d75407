"""The published matrix: finished jobs are skipped, unfinished ones run, and weights are kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from adrbench.checkpoints.format import load
from adrbench.cli.app import app
from adrbench.config.method import parse_method
from adrbench.config.settings import TrainConfig
from adrbench.data import Images
from adrbench.data.builtin import DATASETS
from adrbench.data.images import Source
from adrbench.errors import DataError
from adrbench.results.records import (
    AttackRecord,
    TrainRecord,
    read_record,
    read_records,
    write_record,
)
from benchmarks.reproduce import __main__ as program
from benchmarks.reproduce import jobs as reproduce_jobs
from benchmarks.reproduce import subsets
from benchmarks.reproduce.jobs import Job, Workspace, make_flags, make_jobs, read_index
from benchmarks.reproduce.matrix import JPEG, STUDIES, SUBSETS, Attack, Study, Subset, cross
from benchmarks.reproduce.process_pool import ProcessPool, RunningJob, explain_failure, find_error
from benchmarks.reproduce.progress import Estimate
from benchmarks.reproduce.runner import choose_pending, make_all_jobs, reproduce
from report_records import inspect_record

pytestmark = pytest.mark.xdist_group("reproduce")
ROOT = Path(__file__).parents[2]
#: A study like the published ones, in seconds.
SHORT: dict[str, Any] = {"epochs": 1, "steps": 2}
TRAININGS = cross("digits", "small-cnn", methods=("at", "adr+wa"), seeds=(0,), **SHORT)
TINY = Study(
    summary="tiny",
    trainings=TRAININGS,
    attacks=(Attack(suite="pgd-20", n=40, outputs=True), Attack(suite="fgsm")),
    kept=TRAININGS[1:],
    inspected=TRAININGS[1:],
)
TINIEST = Study(
    summary="tiny",
    trainings=tuple(replace(one, settings={"epochs": 12, "steps": 2}) for one in TRAININGS[:1]),
    attacks=(Attack(suite="fgsm"),),
)


def make_workspace(directory: Path) -> Workspace:
    return Workspace(
        out=directory / "results",
        runs=directory / "runs",
        data_dir=directory / "data",
        device="cpu",
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    where = make_workspace(tmp_path_factory.mktemp("made"))
    assert reproduce({"tiny": TINY}, where, workers=2, threads=1) == 0
    return where


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which jobs are started."""
    names: list[str] = []
    start = ProcessPool.start

    def noted(self: ProcessPool, job: Job) -> RunningJob:
        names.append(job.name)
        return start(self, job)

    monkeypatch.setattr(ProcessPool, "start", noted)
    return names


@pytest.mark.slow
def test_every_record_of_the_matrix_exists(made: Workspace) -> None:
    records = read_records(made.out)
    trained = [record for record in records if isinstance(record, TrainRecord)]
    assert [record.run for record in trained] == [
        "digits-small-cnn-adr+wa-seed0",
        "digits-small-cnn-at-seed0",
    ]
    assert all((r.config["epochs"], r.config["steps"]) == (1, 2) for r in trained)
    attacked = {
        (r.run.removeprefix("digits-"), r.selection, r.weights, r.suite, r.n)
        for r in records
        if isinstance(r, AttackRecord)
    }
    assert attacked == {
        (run, selection, weights, suite, n)
        for suite, n in (("pgd-20", 40), ("fgsm", 360))
        for run, all_weights in (
            ("small-cnn-at-seed0", ("student",)),
            ("small-cnn-adr+wa-seed0", ("student", "average")),
        )
        for selection in ("best", "last")
        for weights in all_weights
    } | {("float16-adr+wa-seed0", "best", "average", "pgd-20", 40)}


@pytest.mark.slow
def test_the_page_is_the_output_of_the_report(made: Workspace) -> None:
    command = [sys.executable, "-m", "adrbench", "report", str(made.out), "--format", "markdown"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    page = (made.out / "RESULTS.md").read_bytes()
    assert page == printed
    for title in (
        "Robust accuracy",
        "Robust overfitting",
        "Differences in robust accuracy",
        "Training",
        "Evaluation",
    ):
        assert f"### {title}" in page.decode()
    assert "| adr+wa (float16) [" in page.decode()


@pytest.mark.slow
def test_finished_jobs_are_skipped(
    made: Workspace, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce({"tiny": TINY}, made, workers=2, threads=1) == 0
    assert started == []
    assert capsys.readouterr().out == f"{made.out / 'RESULTS.md'}\n"


@pytest.mark.slow
def test_the_list_shows_the_progress_of_each_study(
    made: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    further = cross("digits", "small-cnn", methods=("trades",), seeds=(0,), **SHORT)
    study = replace(TINY, trainings=TINY.trainings + further)
    program.list_studies({"tiny": study}, made)
    assert "9 of 12 jobs finished in " in capsys.readouterr().out


@pytest.mark.slow
def test_only_missing_records_are_made(made: Workspace, started: list[str]) -> None:
    (lost,) = made.out.rglob("*small-cnn-at-seed0-last-student-fgsm*.json")
    before = read_record(lost)
    lost.unlink()
    assert reproduce({"tiny": TINY}, made, workers=2, threads=1) == 0
    assert started == ["fgsm digits-small-cnn-at-seed0"]
    again = read_record(lost)
    assert isinstance(before, AttackRecord)
    assert isinstance(again, AttackRecord)
    assert again.verdicts == before.verdicts


@pytest.mark.slow
def test_other_settings_under_a_name_are_refused_and_other_jobs_run(
    made: Workspace, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The attacks on the run that could not be made are not tried; another run is."""
    changed = cross("digits", "small-cnn", methods=("at",), seeds=(0,), **{**SHORT, "epochs": 2})
    further = cross("digits", "small-cnn", methods=("at",), seeds=(1,), **SHORT)
    study = Study(summary="", trainings=changed + further, attacks=(Attack(suite="cw"),))
    assert reproduce({"other": study}, made, workers=1, threads=1) == 1
    assert started == [
        "train digits-small-cnn-at-seed0",
        "train digits-small-cnn-at-seed1",
        "cw digits-small-cnn-at-seed1",
    ]
    stderr = capsys.readouterr().err
    assert "error: train digits-small-cnn-at-seed0: " in stderr
    assert "epochs 1" in stderr
    assert "exit code 1, see " in stderr
    for path in made.out.rglob("*seed1*"):
        path.unlink()


@pytest.mark.slow
def test_kept_weights_are_the_best_average_in_half_precision(made: Workspace) -> None:
    kept = load(made.out / "tiny" / "weights" / "digits-float16-adr+wa-seed0.pt")
    best = load(made.runs / "digits-small-cnn-adr+wa-seed0" / "best.pt")
    assert (kept.selection, kept.training) == ("best", None)
    assert kept.snapshots.keys() == {"average"}
    average = best.snapshots["average"].state
    for name, value in kept.snapshots["average"].state.items():
        expected = average[name].half() if average[name].is_floating_point() else average[name]
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected)


@pytest.mark.slow
def test_kept_weights_can_be_attacked_again(
    made: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.check_kept_weights(made) == 0
    out = capsys.readouterr().out
    assert out.startswith("digits-float16-adr+wa-seed0, pgd-20: ")
    assert "0 outcomes differ: agrees" in out
    (path,) = made.out.rglob("digits-float16*pgd-20*.json")
    data = json.loads(path.read_text())
    verdicts = data["verdicts"]["robust"]
    data["verdicts"]["robust"] = data["verdicts"]["clean"]
    data["robust_correct"] = data["stages"][-1]["survivors"] = data["clean_correct"]
    assert verdicts != data["verdicts"]["clean"], "the attack fooled nothing"
    original = path.read_bytes()
    path.write_text(json.dumps(data))
    assert program.check_kept_weights(made) == 1
    path.write_bytes(original)


MATRIX_SCRIPT = """
import sys
sys.path[:0] = ["{here}", "{root}/tests", "{root}"]
from test_reproduce import TINIEST
from benchmarks.reproduce import __main__ as program
program.STUDIES = {{"tiny": TINIEST}}
sys.argv = ["reproduce", "tiny", *sys.argv[1:]]
program.main()
"""


@pytest.mark.slow
def test_an_interrupted_matrix_resumes(tmp_path: Path) -> None:
    """It exits as if ended by the signal; its training has saved and resumes from there."""
    script = tmp_path / "matrix.py"
    script.write_text(MATRIX_SCRIPT.format(here=Path(__file__).parent, root=ROOT))
    flags = ["--out", "results", "--runs", "runs", "--device", "cpu", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, str(script), *flags],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    name = "digits-small-cnn-at-seed0"
    history, log = tmp_path / "runs" / name / "history.jsonl", tmp_path / "runs" / "logs"
    deadline = time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped with 2 of 2 jobs left: run the same command again to resume." in stderr
    assert "; saved: run the same command again" in (log / f"train {name}.log").read_text()
    epochs = len(history.read_text().splitlines())
    assert 1 <= epochs < TINIEST.trainings[0].settings["epochs"]
    done = subprocess.run(
        [sys.executable, str(script), *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
        f"[1/2] train {name}",
        f"[2/2] fgsm {name}",
    ]
    assert f"resuming at epoch {epochs + 1} of" in (log / f"train {name}.log").read_text()


# Finished jobs


def find_pending(where: Workspace, study: Study = TINY) -> list[str]:
    jobs = make_all_jobs({"tiny": study}, where)
    return [job.name for job in choose_pending(jobs, read_index(where.out))]


def test_the_record_of_an_inspection_is_neither_a_training_nor_an_attack(tmp_path: Path) -> None:
    write_record(tmp_path / "inspect.json", inspect_record())
    index = read_index(tmp_path)
    assert (index.trainings, index.attacks) == ({}, {})


def everything() -> list[str]:
    return [job.name for job in make_all_jobs({"tiny": TINY}, make_workspace(Path()))]


@pytest.mark.slow
def test_records_without_their_runs_count_as_finished(made: Workspace, tmp_path: Path) -> None:
    """As in a clone with published results; a missing attack needs its run, trained again."""
    where = replace(make_workspace(tmp_path), out=tmp_path / "results")
    shutil.copytree(made.out, where.out)
    assert find_pending(where) == []
    (lost,) = where.out.rglob("*small-cnn-adr+wa-seed0-last-student-fgsm*.json")
    lost.unlink()
    names = ["train digits-small-cnn-adr+wa-seed0", "fgsm digits-small-cnn-adr+wa-seed0"]
    assert find_pending(where) == names
    assert find_pending(replace(where, runs=made.runs)) == names[1:]
    assert reproduce({"tiny": TINY}, where, workers=1, threads=1) == 0
    assert lost.exists()
    assert find_pending(where) == []
    lost.unlink()
    (where.out / "tiny" / "weights" / "digits-float16-adr+wa-seed0.pt").unlink()
    assert find_pending(replace(where, runs=made.runs))[1:] == ["keep digits-float16-adr+wa-seed0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"training_sha256": "f" * 64}, True),
        ({"suite": "cw"}, True),
        ({"n": 39}, True),
        ({"threat_model": {"norm": "Linf", "eps": 0.2}}, True),
        ({"threat_model": {"norm": "L2", "eps": 0.1}}, True),
        ({"seconds": 1.0}, False),
    ],
    ids=str,
)
def test_records_of_other_settings_do_not_count(
    made: Workspace, tmp_path: Path, change: dict[str, Any], again: bool
) -> None:
    where = replace(made, out=tmp_path)
    shutil.copytree(made.out, where.out, dirs_exist_ok=True)
    (path,) = where.out.rglob("*small-cnn-at-seed0-best-student-pgd-20*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert find_pending(where) == (["pgd-20 on 40 digits-small-cnn-at-seed0"] if again else [])


@pytest.mark.slow
def test_a_run_of_other_settings_does_not_count(made: Workspace) -> None:
    trainings = tuple(replace(one, settings={**SHORT, "lr": 0.5}) for one in TRAININGS)
    changed = replace(TINY, trainings=trainings, kept=trainings[1:], inspected=trainings[1:])
    assert find_pending(made, changed) == everything()


@pytest.mark.slow
def test_a_run_of_another_preset_does_not_count(
    made: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings from presets are compared too."""
    complete = reproduce_jobs.complete_settings

    def changed(*args: Any, **options: Any) -> TrainConfig:
        return replace(complete(*args, **options), weight_decay=0.25)

    monkeypatch.setattr(reproduce_jobs, "complete_settings", changed)
    assert find_pending(made) == everything()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"activation": "silu"}, {"split_seed": 7}, {"crafting_mode": "eval"}]
)
def test_a_run_of_other_defaults_does_not_count(
    made: Workspace, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Settings from neither preset nor matrix are compared with the command line's defaults."""
    where = replace(made, out=tmp_path)
    shutil.copytree(made.out, where.out, dirs_exist_ok=True)
    for path in where.out.rglob("train-*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"config": record["config"] | change}))
    assert find_pending(where) == everything()


# Jobs as processes


def command(name: str, code: str, needs: str = "") -> Job:
    return Job(
        name=name, kind="", arguments=("-c", code), needs=needs, find_seconds=lambda index: None
    )


def run_pool(pool: ProcessPool, jobs: Sequence[Job]) -> dict[str, int]:
    """Return the exit code of each job that was run, in the order in which they ended."""
    codes = {}
    for one in pool.run(jobs):
        codes[one.job.name] = one.process.returncode
        one.failure = "no records" if one.job.name == "no records" else ""
    return codes


def test_dependents_of_a_failed_job_are_skipped(tmp_path: Path) -> None:
    jobs = [
        command("train", "raise SystemExit(3)"),
        command("keep", "", needs="train"),
        command("attack what is kept", "", needs="keep"),
        command("another", ""),
        command("attack another", "", needs="another"),
        command("no records", ""),
        command("attack without records", "", needs="no records"),
        command("done before", "", needs="a job that is not in the list"),
    ]
    pool = ProcessPool(workers=1, threads=None, logs=tmp_path)
    found = run_pool(pool, jobs)
    names = ("another", "attack another", "no records", "done before")
    assert found == {"train": 3, **dict.fromkeys(names, 0)}
    assert [job.name for job in pool.skipped] == [
        *("keep", "attack what is kept", "attack without records")
    ]


def test_jobs_get_their_threads_and_a_log(tmp_path: Path) -> None:
    code = "import os, adrbench; print(os.environ['OMP_NUM_THREADS'], adrbench.__file__)"
    pool = ProcessPool(workers=2, threads=3, logs=tmp_path / "logs")
    run_pool(pool, [command("a/b", code)])
    log = tmp_path / "logs" / "a-b.log"
    assert log.read_text() == f"3 {ROOT / 'adrbench' / '__init__.py'}\n"


def test_as_many_jobs_run_as_there_are_workers(tmp_path: Path) -> None:
    """Each of two jobs waits for the file of the other: one at a time they would wait for ever."""
    code = (
        "import pathlib, time\n"
        "pathlib.Path(r'{0}/{1}').touch()\n"
        "while not pathlib.Path(r'{0}/{2}').exists(): time.sleep(0.01)"
    )
    jobs = [
        command("one", code.format(tmp_path, "1", "2")),
        command("two", code.format(tmp_path, "2", "1")),
    ]
    found = run_pool(ProcessPool(workers=2, threads=None, logs=tmp_path), jobs)
    assert found == {"one": 0, "two": 0}


def test_a_signal_reaches_every_job_and_starts_none(tmp_path: Path) -> None:
    waits = "import time; print('here', flush=True); time.sleep(60)"
    jobs = [command(name, waits) for name in ("one", "two", "three")]
    pool = ProcessPool(workers=2, threads=None, logs=tmp_path)

    def send_signal() -> None:
        while [log.read_text() for log in tmp_path.glob("*.log")] != ["here\n", "here\n"]:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send_signal, daemon=True).start()
    with pool.forwarding_signals():
        ended = {one.job.name: one.process.returncode for one in pool.run(jobs)}
    assert ended == {"one": -signal.SIGTERM, "two": -signal.SIGTERM}
    assert pool.stopped_by == signal.SIGTERM


def test_no_job_outlives_the_matrix(tmp_path: Path) -> None:
    pool = ProcessPool(workers=2, threads=None, logs=tmp_path)
    jobs = [command("long", "import time; time.sleep(60)"), command("short", "")]

    def fail() -> None:
        with pool.forwarding_signals():
            for _ in pool.run(jobs):
                raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert [one.process.returncode for one in pool.running] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_reason_of_a_failure_is_from_the_log(tmp_path: Path) -> None:
    jobs = [
        command("exits", "import sys; sys.exit('error: the disk is full.')"),
        command("dies", "import os; os.kill(os.getpid(), 9)"),
    ]
    pool = ProcessPool(workers=1, threads=None, logs=tmp_path)
    reasons = [explain_failure(one) for one in pool.run(jobs)]
    assert reasons == [
        f"the disk is full. (exit code 1, see {tmp_path / 'exits.log'})",
        f"(ended by SIGKILL, see {tmp_path / 'dies.log'})",
    ]


def timed(name: str, kind: str) -> Job:
    return Job(name=name, kind=kind, arguments=(), find_seconds=lambda index: None)


def test_seconds_left_are_those_of_make_all_jobs_the_same_kind() -> None:
    """Two workers, 10 s a job of one kind: 4 jobs take 20 s; of the other kind nothing is known."""
    jobs = [timed(str(i), "train") for i in range(5)] + [timed("a", "attack")]
    estimate = Estimate(workers=2)
    assert estimate.describe_time_left(jobs, []) == "time left unknown"
    estimate.add(jobs[0], 8.0)
    estimate.add(jobs[0], 12.0)
    estimate.add(jobs[-1], None)
    assert estimate.describe_time_left(jobs[1:], []) == "0:00:20 left, and 1 job not timed yet"
    assert estimate.describe_time_left(jobs[1:-1], []) == "0:00:20 left"
    assert estimate.describe_time_left([], []) == "0:00:00 left"


def test_the_time_left_excludes_elapsed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 s one has 30 left; the other has taken longer than expected; one worker, so 30 s."""
    estimate = Estimate(workers=1)
    estimate.add(timed("", "train"), 100.0)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    monkeypatch.setattr(time, "perf_counter", lambda: 1_000.0)
    running = [
        RunningJob(job=timed("", "train"), process=process, log=Path(), began=began)
        for began in (930.0, 850.0)
    ]
    assert estimate.describe_time_left([], running) == "0:00:30 left"
    # Even with many workers it cannot be over before the job that takes longest.
    estimate.workers = 8
    assert estimate.describe_time_left([], running) == "0:00:30 left"


def test_a_job_comes_after_the_one_it_needs() -> None:
    for study in STUDIES.values():
        seen: set[str] = set()
        for job in make_jobs(study, make_workspace(Path())):
            assert job.name not in seen
            assert not job.needs or job.needs in seen
            seen.add(job.name)
        assert all(one in study.trainings for one in study.kept)


def test_names_in_the_matrix_are_unique_and_canonical() -> None:
    trainings = [one for study in STUDIES.values() for one in study.trainings]
    runs = [one.run for one in trainings]
    assert len(set(runs)) == len(runs)
    assert all(str(parse_method(one.method)) == one.method for one in trainings)


def test_settings_become_flags() -> None:
    settings = {"epochs": 3, "alpha": 3 / 255, "milestones": (0.5, 0.75), "n": None}
    flags = list(make_flags(settings))
    assert flags == ["--epochs", "3", "--alpha", repr(3 / 255), "--milestones", "0.5,0.75"]
    assert list(make_flags({"flip": False, "nesterov": True})) == ["--no-flip", "--nesterov"]


def test_the_command_line_accepts_the_flags_of_every_training() -> None:
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    for study in STUDIES.values():
        for training in study.trainings:
            train.make_context("train", [training.dataset, *make_flags(training.all_settings)])


def test_an_unknown_study_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.reproduce", "digit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown study 'digit': did you mean digits")


def test_the_last_error_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("epoch 1\nerror: the first\nerror: the second.\n  more\n")
    assert find_error(log) == "error: the second."
    log.write_text("Traceback\nValueError: odd\n")
    assert find_error(log) == "ValueError: odd"
    assert find_error(tmp_path / "none") == ""


# Subsets of data sets


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace CIFAR-10 by images whose pixels are their own number."""

    def load_split(dataset: str, split: str, *, data_dir: Path) -> tuple[Images, Source]:
        assert dataset == "cifar10"
        n = {"train": 50, "test": 10}[split]
        numbers = torch.arange(n, dtype=torch.uint8) + (100 if split == "test" else 0)
        pixels = numbers.view(-1, 1, 1, 1).expand(n, 3, 32, 32).contiguous()
        return Images(pixels, torch.arange(n) % 10), DATASETS[dataset]

    monkeypatch.setattr(subsets, "load_split", load_split)


def test_a_subset_has_the_images_of_its_ranges(tmp_path: Path, small_cifar: None) -> None:
    ranges = Subset(train=((0, 3), (20, 22)), val=((10, 12),), test=((0, 4),), sha256=("", "", ""))
    subsets.write_subset(ranges, tmp_path / "subset.npz", tmp_path)
    with np.load(tmp_path / "subset.npz") as arrays:
        assert arrays["x_train"].shape == (5, 32, 32, 3)
        assert arrays["x_train"][:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21]
        assert arrays["y_train"].tolist() == [0, 1, 2, 0, 1]
        assert arrays["x_val"][:, 0, 0, 0].tolist() == [10, 11]
        assert arrays["x_test"][:, 0, 0, 0].tolist() == [100, 101, 102, 103]


def test_other_images_than_the_published_ones_are_refused(tmp_path: Path) -> None:
    x = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    y = np.arange(10)
    name = "cifar10-first-1000"
    np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=f"{name}.npz are not those of the published"):
        subsets.prepare_datasets([name], tmp_path)


def test_missing_jpeg_images_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpack the JPEG files"):
        subsets.prepare_datasets([JPEG], tmp_path)
    subsets.prepare_datasets(["digits"], tmp_path)


def test_the_subset_of_the_digits_is_the_published_one(tmp_path: Path) -> None:
    """`prepare_datasets` compares the images with the published SHA-256."""
    subsets.prepare_datasets(["digits-first-300"], tmp_path)


@pytest.mark.parametrize("name", SUBSETS)
def test_training_and_validation_images_are_disjoint(name: str) -> None:
    ranges = (*SUBSETS[name].train, *SUBSETS[name].val)
    images = [image for first, end in ranges for image in range(first, end)]
    assert len(set(images)) == len(images)


@pytest.mark.data
def test_the_published_subset_has_the_first_images(real_images: Path) -> None:
    """The file has the first 1,102 images of the first batch: the subset's 1,000 are among them."""
    with np.load(real_images / "cifar10-first.npz") as arrays:
        pixels = torch.from_numpy(arrays["x_train"][:1_000]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(arrays["y_train"][:1_000]).long()
    assert Images(pixels, labels).sha256() == SUBSETS["cifar10-first-1000"].sha256[0]
