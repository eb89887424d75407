"""The soak finds torn files, lost progress, wrong exits and differing results, and runs."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adrbench.checkpoints import format as checkpoint
from adrbench.checkpoints.format import Checkpoint, ModelShape, Snapshot
from adrbench.evaluation.progress import ProgressFiles, begin
from adrbench.results.records import Outcomes, pack_outcomes, write_record
from benchmarks.soak.commands import make_training
from benchmarks.soak.comparison import compare, find_difference, find_lost_progress
from benchmarks.soak.directory_state import FINISHED, read_directory
from benchmarks.soak.kills import KillPlan, Moment, ProcessRun, draw_plan, find_exit_problems
from benchmarks.soak.trial import find_problems
from report_records import attack_record
from training_runs import make_config

ROOT = Path(__file__).parents[2]
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
SAVED = "error: interrupted after epoch 1 of 2; saved: run the same command again to resume.\n"
EARLY = "Traceback (most recent call last):\n  ...\nKeyboardInterrupt\n"


def make_checkpoint(steps: int = 2) -> Checkpoint:
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
    row = {"epoch": 1, "train_loss": 2.5, "seconds": 1.0}
    return Checkpoint(
        selection="last",
        config=make_config(),
        shape=ModelShape(num_classes=10, in_channels=1),
        run="run-1",
        data_sha256="",
        snapshots={"student": Snapshot(state=weights, epoch=1, counts=None)},
        training={"history": [row], "losses": torch.ones(steps), "seconds": 0.5},
    )


def make_run(*sent: signal.Signals, code: int | None, **changes: Any) -> ProcessRun:
    values: dict[str, Any] = {
        "plan": None,
        "sent": sent,
        "killed_seconds": 1.0,
        "had_output": True,
        "output_seconds": 0.5,
        "seconds": 1.0,
        "exit_code": code,
        "stderr": SAVED if code and code > 0 else "",
    }
    return ProcessRun(**(values | changes))


def fill(directory: Path) -> None:
    """Write one file of every kind."""
    run = directory / "checkpoints" / "run-1"
    run.mkdir(parents=True)
    checkpoint.save(run / "last.pt", make_checkpoint())
    (run / "config.json").write_text(json.dumps({**make_config().to_json(), "run_id": "0"}))
    (run / "history.jsonl").write_text('{"epoch": 1}\n')
    record = directory / "results" / "one-0123.json"
    write_record(record, attack_record(5, 3))
    state = begin(8)
    state.done |= {0, 2}
    progress_store = ProgressFiles(stem=record.with_name(".two-4567"), fingerprint="f", n=8, rank=0)
    progress_store.save(state)


def flip_a_bit(made: Checkpoint) -> None:
    weight = made.snapshots["student"].state["weight"]
    weight.view(torch.uint8)[1, 5] ^= 1


def negate_a_zero(made: Checkpoint) -> None:
    made.snapshots["student"].state["weight"][0, 0] *= -1


def change_a_loss(made: Checkpoint) -> None:
    assert made.training is not None
    made.training["history"][0]["train_loss"] += 1e-15


def delete_a_tensor(made: Checkpoint) -> None:
    del made.snapshots["student"].state["count"]


def double_the_precision(made: Checkpoint) -> None:
    state = made.snapshots["student"].state
    state["weight"] = state["weight"].double()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (flip_a_bit, "/snapshots/student/state/weight"),
        (negate_a_zero, "/snapshots/student/state/weight"),
        (change_a_loss, "/training/history/0/train_loss"),
        (delete_a_tensor, "/snapshots/student/state/count"),
        (double_the_precision, "/snapshots/student/state/weight"),
    ],
)
def test_the_smallest_difference_of_a_checkpoint_is_found(
    change: Callable[[Checkpoint], None], place: str
) -> None:
    changed = make_checkpoint()
    assert find_difference(changed, make_checkpoint()) is None
    change(changed)
    found = find_difference(changed, make_checkpoint())
    assert found is not None
    assert found.startswith(f"{place} ")


def test_one_outcome_is_a_difference_and_a_duration_is_not() -> None:
    def record(*correct: bool, seconds: float = 1.0) -> object:
        packed = pack_outcomes(torch.tensor(correct).numpy())
        verdicts = Outcomes(clean=packed, robust=packed)
        return attack_record(2, 2, n=3, verdicts=verdicts, seconds=seconds)

    assert find_difference(record(True, True, False), record(True, True, False, seconds=2)) is None
    found = find_difference(record(True, True, False), record(True, False, True))
    assert found is not None
    assert found.startswith("/verdicts/clean ")


def test_a_directory_is_read_with_its_progress(tmp_path: Path) -> None:
    fill(tmp_path)
    state = read_directory(tmp_path)
    assert state.unreadable == []
    assert state.progress == {"run-1": (1, 2), "two-4567": (0, 2), "one-0123": FINISHED}
    assert state.leftovers == ["results/.two-4567.0.state"]
    assert state.num_read == 5


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/run-1/last.pt",
        "checkpoints/run-1/config.json",
        "checkpoints/run-1/history.jsonl",
        "results/one-0123.json",
        "results/.two-4567.0.state",
    ],
)
def test_a_torn_file_is_found(name: str, tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-2])
    (torn,) = read_directory(tmp_path).unreadable
    assert torn.startswith(f"{name} cannot be read")


def test_only_known_files_may_remain_after_a_kill(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in (
        "checkpoints/run-1/.lock",
        "checkpoints/run-1/.last.pt.01ab.tmp",
        "results/.a.lock",
    ):
        (tmp_path / name).touch()
    assert read_directory(tmp_path).unreadable == []
    (tmp_path / "results" / "tmpx3").touch()
    assert len(read_directory(tmp_path).unreadable) == 1


def test_leftovers_and_missing_files_are_differences(tmp_path: Path) -> None:
    uninterrupted = tmp_path / "uninterrupted"
    fill(uninterrupted)
    (uninterrupted / "results" / ".two-4567.0.state").unlink()
    assert compare(read_directory(uninterrupted), read_directory(uninterrupted)) == []
    killed = tmp_path / "killed"
    fill(killed)
    assert compare(read_directory(killed), read_directory(uninterrupted)) == [
        "results/.two-4567.0.state is left over"
    ]
    (killed / "results" / ".two-4567.0.state").unlink()
    (killed / "results" / "one-0123.json").unlink()
    (difference,) = compare(read_directory(killed), read_directory(uninterrupted))
    assert "one-0123.json" in difference


def test_lost_progress_is_found() -> None:
    before = {"a": (1, 2), "b": FINISHED}
    assert list(find_lost_progress(before, before | {"a": (2, 0), "c": (0, 1)})) == []
    (problem,) = find_lost_progress(before, before | {"a": (1, 1)})
    assert problem == "saved progress was lost: a is at (1, 1) and was at (1, 2)"
    assert len(list(find_lost_progress(before, {"a": (1, 2)}))) == 1


def test_a_false_report_of_a_save_is_found(tmp_path: Path) -> None:
    fill(tmp_path)
    command, state = make_training(1, seed=0, method="at", epochs=2), read_directory(tmp_path)

    def stopped(where: str) -> ProcessRun:
        return make_run(TERM, code=143, stderr=f"error: interrupted {where}; saved: ")

    within = "at epoch 2 of 2, after {} of 10 steps"
    assert find_problems(command, stopped(within.format(2)), state, state) == []
    assert len(find_problems(command, stopped(within.format(3)), state, state)) == 1
    assert len(find_problems(command, stopped("after epoch 2 of 2"), state, state)) == 1


@pytest.mark.parametrize(
    ("run", "is_finished"),
    [
        (make_run(KILL, code=-9), False),
        (make_run(TERM, code=143), False),
        (make_run(INT, code=130), False),
        (make_run(INT, TERM, code=130), False),
        (make_run(TERM, code=-15, had_output=False), False),
        (make_run(TERM, code=-15), True),
        (make_run(INT, code=-2, had_output=False, stderr=EARLY), False),
        (make_run(INT, code=1, had_output=False, stderr=EARLY), False),
        (make_run(INT, code=130, had_output=False, stderr=""), False),
        (make_run(TERM, TERM, code=-15, stderr=SAVED), False),
        (make_run(INT, KILL, code=-9, stderr=SAVED), False),
        (make_run(code=0), True),
        (make_run(TERM, code=0), True),
    ],
)
def test_documented_exits_are_accepted(run: ProcessRun, is_finished: bool) -> None:
    assert find_exit_problems(run, is_finished=is_finished) == []


@pytest.mark.parametrize(
    ("run", "is_finished"),
    [
        (make_run(TERM, code=None), False),
        (make_run(TERM, code=-15), False),
        (make_run(TERM, code=130), False),
        (make_run(TERM, code=0), False),
        (make_run(INT, code=130, stderr=""), False),
        (make_run(INT, INT, code=130, stderr=2 * SAVED), False),
        (make_run(TERM, code=-15, stderr=SAVED), False),
        (make_run(KILL, code=-9, stderr=SAVED), False),
        (make_run(INT, code=-2, stderr=EARLY), False),
        (make_run(INT, code=-2, stderr=EARLY), True),
        (make_run(INT, code=1, had_output=False, stderr="Traceback ...\nImportError\n"), False),
        (make_run(TERM, code=143, had_output=False, stderr=""), False),
        (make_run(KILL, code=1, stderr="error: it is broken\n"), False),
        (make_run(code=1, stderr="error: it is broken\n"), False),
    ],
)
def test_other_exits_are_problems(run: ProcessRun, is_finished: bool) -> None:
    assert find_exit_problems(run, is_finished=is_finished)


def test_kills_cover_every_moment_and_follow_from_the_seed() -> None:
    def plans(seed: int, *, is_late: bool) -> list[KillPlan]:
        rng = random.Random(seed)
        return [
            draw_plan(rng, is_late=is_late, startup_seconds=3, span_seconds=1) for _ in range(200)
        ]

    late = plans(0, is_late=True)
    assert late == plans(0, is_late=True) != plans(1, is_late=True)
    moments: set[Moment] = {"start", "work", "save", "end"}
    assert {plan.moment for plan in late} == moments
    assert {plan.moment for plan in plans(0, is_late=False)} == moments - {"end"}
    assert {number for plan in late for number in plan.signals} == {KILL, TERM, INT}
    assert {len(plan.signals) for plan in late} == {1, 2}
    assert max(plan.wait_seconds for plan in late if plan.moment == "work") < 1


@pytest.mark.slow
def test_a_soak_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = "--method at --train-kills 1 --attack-kills 1 --epochs 2 --n 4"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *line.split(), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    document = json.loads(out.read_text())
    assert document["benchmark"] == "soak"
    runs = [run for outcome in document["outcomes"] for run in outcome["lives"]]
    assert sum(run["exit_code"] != 0 for run in runs) == 2
    assert "identical to the uninterrupted run, bit for bit" in done.stdout
    assert all(not outcome["wrong"] for outcome in document["outcomes"])
