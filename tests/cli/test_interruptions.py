"""Signals to a training in a process of its own: acknowledged at once, and a second one obeyed."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from adrbench.checkpoints import format as checkpoints
from adrbench.results.records import AttackRecord, read_record
from runner import succeed
from training_runs import assert_same_run

ROOT = Path(__file__).parents[2]
LINE = ("train", "digits", "--method", "adr", "--epochs", "2", "--steps", "1")
RUN = Path("checkpoints/run")
#: Runs the command line. Once the file "armed" exists, saving a file takes a minute.
SCRIPT = """
import os, pathlib, sys, time
from adrbench.cli import main
from adrbench.runtime import files

flush = os.fsync

def flush_slowly(descriptor):
    if pathlib.Path("armed").exists():
        print("saving", file=sys.stderr, flush=True)
        time.sleep(60)
    flush(descriptor)

files.os.fsync = flush_slowly
main()
"""


def restore_signals() -> None:
    """Restore the default actions of SIGINT, which shells ignore in the background, and SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[str]:
    """Start a training that saves after every step; it has saved, and its next save is slow."""
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *LINE, "--name", "run", "--save-minutes", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=restore_signals,  # noqa: PLW1509 - this process has no other threads
    )
    while not (RUN / checkpoints.LAST).exists():
        assert process.poll() is None
        time.sleep(0.001)
    Path("armed").touch()
    return process


def read_until(process: subprocess.Popen[str], line: str) -> list[str]:
    """Return the lines on stderr up to `line`."""
    assert process.stderr is not None
    lines = []
    for text in process.stderr:
        lines.append(text.rstrip("\n"))
        if lines[-1] == line:
            return lines
    raise AssertionError(lines)


@pytest.mark.parametrize(
    ("number", "acknowledgement"),
    [
        (signal.SIGINT, "finishing this step, then saving; Ctrl-C once more to quit now"),
        (
            signal.SIGTERM,
            "SIGTERM: finishing this step, then saving; SIGTERM once more to quit now",
        ),
    ],
)
def test_a_second_signal_quits_during_the_save_and_files_stay_whole(
    training: subprocess.Popen[str], number: signal.Signals, acknowledgement: str
) -> None:
    read_until(training, "saving")
    before = (RUN / checkpoints.LAST).read_bytes()
    training.send_signal(number)
    read_until(training, acknowledgement)
    time.sleep(1.1)  # signals within a second are one request
    began = time.monotonic()
    training.send_signal(number)
    out, err = training.communicate(timeout=30)
    assert time.monotonic() - began < 10, "it does not wait for the save"
    assert (training.returncode, out) == (128 + number, "")
    assert err == (
        "error: interrupted before the next save; checkpoints/run has the last saved state: run "
        "the same command again to resume.\n"
    )
    assert (RUN / checkpoints.LAST).read_bytes() == before
    checkpoints.load(RUN / checkpoints.LAST)
    assert not list(RUN.glob(".*.tmp"))
    succeed(*LINE, "--name", "run")
    succeed(*LINE, "--name", "whole")
    assert_same_run(RUN, RUN.with_name("whole"))


def start_on_terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose terminal closes when the returned descriptor does."""
    terminal, end = os.openpty()

    def take_terminal() -> None:
        restore_signals()
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "adrbench", *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no other threads
    )
    os.close(end)
    os.set_blocking(terminal, False)
    return process, terminal


def close_when(process: subprocess.Popen[bytes], terminal: int, pattern: str) -> int:
    """Close the terminal of a process once a file exists; return the exit code of the process."""
    while not list(Path().glob(pattern)):
        assert process.poll() is None
        time.sleep(0.01)
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            continue
    os.close(terminal)
    return process.wait(timeout=60)


def test_work_is_saved_when_the_terminal_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ("train", "digits", "--method", "adr", "--epochs", "4", "--steps", "1")
    process, terminal = start_on_terminal(*line, "--name", "run", "--save-minutes", "0")
    assert close_when(process, terminal, "checkpoints/run/last.pt") == 129
    saved = checkpoints.load(RUN / checkpoints.LAST)
    assert saved.training is not None
    assert len(saved.training["history"]) < 4
    assert not (RUN / ".lock").exists()
    succeed(*line, "--name", "run")
    succeed(*line, "--name", "whole")
    assert_same_run(RUN, RUN.with_name("whole"))

    attack = ("attack", "checkpoints/run", "--suite", "apgd-ce", "--batch-size", "20")
    process, terminal = start_on_terminal(*attack)
    assert close_when(process, terminal, "results/.*.state") == 129
    assert not list(Path("results").glob("run*.json"))
    succeed(*attack, "--out", "whole")
    succeed(*attack)
    for one in Path("whole").glob("run*.json"):
        resumed, whole = read_record(Path("results", one.name)), read_record(one)
        assert isinstance(resumed, AttackRecord)
        assert isinstance(whole, AttackRecord)
        assert resumed.verdicts == whole.verdicts
