"""Standard streams that are closed, full, or read by a program that has exited."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
NO_SPACE = (
    "error: standard output: No space left on device; check the path, its permissions and the "
    "disk.\n"
)


def run(arguments: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that redirects its streams; return its exit code and output."""
    line = f"'{sys.executable}' -m adrbench {arguments} {redirection}"
    return subprocess.run(
        ["sh", "-c", line], check=False, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("arguments", ["--help", "list archs", "list baselines --dataset cifar10"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_discard_what_is_written(arguments: str, closed: str) -> None:
    done = run(arguments, closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")


@needs_full
@pytest.mark.parametrize("arguments", ["--help", "list archs"])
def test_output_that_cannot_be_written_is_one_error(arguments: str) -> None:
    done = run(arguments, "> /dev/full")
    assert (done.returncode, done.stderr) == (1, NO_SPACE)


@needs_full
@pytest.mark.parametrize(
    ("arguments", "code"), [("list archs", 0), ("report nothing-here", 1), ("report --nope", 2)]
)
def test_messages_that_cannot_be_written_leave_the_exit_code(arguments: str, code: int) -> None:
    assert run(arguments, "2> /dev/full").returncode == code


def test_a_reader_that_has_exited_causes_no_message() -> None:
    done = run("list baselines --dataset cifar10", "| true")
    assert done.stderr == ""


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "import os, sys; from adrbench.cli import streams; streams.prepare_streams(); "
        f"print(os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY), file=sys.stderr)"
    )
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{program}" <&- >&-'],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(done.stderr) > 2
