"""The soak notices what it is there to notice, and runs."""

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
from adrbench.results.records import Verdicts, pack_verdicts, write_record
from benchmarks.kills import Life, Moment, Plan, draw, judge
from benchmarks.remains import FINISHED, compare, find_difference, find_loss, look
from benchmarks.soak import inspect
from benchmarks.works import make_training
from report_records import attack_record
from training_runs import make_config

ROOT = Path(__file__).parents[2]
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
SAVED = "error: interrupted: it is saved; the same command goes on.\n"
EARLY = "Traceback (most recent call last):\n  ...\nKeyboardInterrupt\n"


def make_checkpoint(steps: int = 2) -> Checkpoint:
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
    row = {"epoch": 1, "train_loss": 2.5, "seconds": 1.0}
    return Checkpoint(
        selection="last",
        config=make_config(),
        shape=ModelShape(arch="small-cnn", activation="relu", num_classes=10, in_channels=1),
        run="run-1",
        data_sha256="",
        snapshots={
            "student": Snapshot(state=weights, epoch=1, clean_correct=None, robust_correct=None)
        },
        training={"history": [row], "losses": torch.ones(steps), "seconds": 0.5},
    )


def make_life(*sent: signal.Signals, code: int | None, **changes: Any) -> Life:
    values: dict[str, Any] = {
        "plan": None,
        "sent": sent,
        "killed_seconds": 1.0,
        "spoken": True,
        "spoke_seconds": 0.5,
        "seconds": 1.0,
        "exit_code": code,
        "stderr": SAVED if code and code > 0 else "",
    }
    return Life(**(values | changes))


def fill(directory: Path) -> None:
    """Write one file of every kind."""
    run = directory / "checkpoints" / "run-1"
    run.mkdir(parents=True)
    checkpoint.save(run / "last.pt", make_checkpoint())
    (run / "config.json").write_text(json.dumps(make_config().to_json()))
    (run / "history.jsonl").write_text('{"epoch": 1}\n')
    record = directory / "results" / "one-0123.json"
    write_record(record, attack_record(5, 3))
    state = begin(8)
    state.done |= {0, 2}
    progress_store = ProgressFiles(
        record=record.with_name("two-4567.json"), fingerprint="f", n=8, rank=0
    )
    progress_store.save(state)


def flip_a_bit(made: Checkpoint) -> None:
    weight = made.snapshots["student"].state["weight"]
    weight.view(torch.uint8)[1, 5] ^= 1


def negate_a_zero(made: Checkpoint) -> None:
    made.snapshots["student"].state["weight"][0, 0] *= -1


def change_a_loss(made: Checkpoint) -> None:
    assert made.training is not None
    made.training["history"][0]["train_loss"] += 1e-15


def forget_a_tensor(made: Checkpoint) -> None:
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
        (forget_a_tensor, "/snapshots/student/state"),
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


def test_one_verdict_is_a_difference_and_the_time_is_none() -> None:
    def record(*correct: bool, seconds: float = 1.0) -> object:
        packed = pack_verdicts(torch.tensor(correct).numpy())
        verdicts = Verdicts(clean=packed, robust=packed)
        return attack_record(2, 2, n=3, verdicts=verdicts, seconds=seconds)

    assert find_difference(record(True, True, False), record(True, True, False, seconds=2)) is None
    found = find_difference(record(True, True, False), record(True, False, True))
    assert found is not None
    assert found.startswith("/verdicts/clean ")


def test_what_is_left_is_read_and_located(tmp_path: Path) -> None:
    fill(tmp_path)
    remains = look(tmp_path)
    assert remains.torn == []
    assert remains.position == {"run-1": (1, 2), "two-4567": (0, 2), "one-0123": FINISHED}
    assert remains.leftovers == ["results/.two-4567.0.state"]
    assert remains.num_read == 5


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
    (torn,) = look(tmp_path).torn
    assert torn.startswith(f"{name} cannot be read")


def test_only_known_files_may_be_left_by_a_kill(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("checkpoints/run-1/.lock", "checkpoints/run-1/.last.pt.tmp", "results/.a.lock"):
        (tmp_path / name).touch()
    assert look(tmp_path).torn == []
    (tmp_path / "results" / "tmpx3").touch()
    assert len(look(tmp_path).torn) == 1


def test_leftovers_and_missing_files_spoil_the_comparison(tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    fill(calm)
    (calm / "results" / ".two-4567.0.state").unlink()
    assert compare(look(calm), look(calm)) == []
    stormy = tmp_path / "stormy"
    fill(stormy)
    assert compare(look(stormy), look(calm)) == ["results/.two-4567.0.state is left over"]
    (stormy / "results" / ".two-4567.0.state").unlink()
    (stormy / "results" / "one-0123.json").unlink()
    (difference,) = compare(look(stormy), look(calm))
    assert "one-0123.json" in difference


def test_lost_work_is_noticed() -> None:
    before = {"a": (1, 2), "b": FINISHED}
    assert find_loss(before, before | {"a": (2, 0), "c": (0, 1)}) is None
    assert (
        find_loss(before, before | {"a": (1, 1)})
        == "saved work is lost: a is at (1, 1) and was at (1, 2)"
    )
    assert find_loss(before, {"a": (1, 2)}) is not None


def test_what_a_run_says_of_itself_has_to_be_so(tmp_path: Path) -> None:
    fill(tmp_path)
    work, remains = make_training(1, seed=0, method="at", epochs=2), look(tmp_path)

    def say(where: str) -> Life:
        return make_life(TERM, code=143, stderr=f"error: interrupted: it is saved after {where}; ")

    assert inspect(work, say("step 2 of epoch 2"), remains, remains) == []
    assert len(inspect(work, say("step 3 of epoch 2"), remains, remains)) == 1
    assert len(inspect(work, say("epoch 2"), remains, remains)) == 1


@pytest.mark.parametrize(
    ("life", "is_finished"),
    [
        (make_life(KILL, code=-9), False),
        (make_life(TERM, code=143), False),
        (make_life(INT, code=130), False),
        (make_life(INT, TERM, code=130), False),
        (make_life(TERM, code=-15, spoken=False), False),
        (make_life(TERM, code=-15), True),
        (make_life(INT, code=-2, spoken=False, stderr=EARLY), False),
        (make_life(INT, code=1, spoken=False, stderr=EARLY), False),
        (make_life(INT, code=130, spoken=False, stderr=""), False),
        (make_life(TERM, TERM, code=-15, stderr=SAVED), False),
        (make_life(INT, KILL, code=-9, stderr=SAVED), False),
        (make_life(code=0), True),
        (make_life(TERM, code=0), True),
    ],
)
def test_good_ends(life: Life, is_finished: bool) -> None:
    assert judge(life, is_finished=is_finished) == []


@pytest.mark.parametrize(
    ("life", "is_finished"),
    [
        (make_life(TERM, code=None), False),
        (make_life(TERM, code=-15), False),
        (make_life(TERM, code=130), False),
        (make_life(TERM, code=0), False),
        (make_life(INT, code=130, stderr=""), False),
        (make_life(INT, INT, code=130, stderr=2 * SAVED), False),
        (make_life(TERM, code=-15, stderr=SAVED), False),
        (make_life(KILL, code=-9, stderr=SAVED), False),
        (make_life(INT, code=-2, stderr=EARLY), False),
        (make_life(INT, code=-2, stderr=EARLY), True),
        (make_life(INT, code=1, spoken=False, stderr="Traceback ...\nImportError\n"), False),
        (make_life(TERM, code=143, spoken=False, stderr=""), False),
        (make_life(KILL, code=1, stderr="error: it is broken\n"), False),
        (make_life(code=1, stderr="error: it is broken\n"), False),
    ],
)
def test_bad_ends(life: Life, is_finished: bool) -> None:
    assert judge(life, is_finished=is_finished)


def test_kills_land_everywhere_and_are_drawn_from_the_seed() -> None:
    def plans(seed: int, *, is_late: bool) -> list[Plan]:
        rng = random.Random(seed)
        return [draw(rng, is_late=is_late, startup_seconds=3, span_seconds=1) for _ in range(200)]

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
    line = "--train-kills 2 --attack-kills 2 --epochs 2 --n 4"
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
    lives = [life for outcome in document["outcomes"] for life in outcome["lives"]]
    assert sum(life["exit_code"] != 0 for life in lives) == 4
    assert "ends in the same, bit by bit" in done.stdout
    assert all(not outcome["wrong"] for outcome in document["outcomes"])
