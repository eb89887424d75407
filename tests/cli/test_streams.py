"""Standard streams that are closed, full, or read by a program that has exited."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """Yield the end for writing of a full pipe that is not waited for."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b" " * 2**16)
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "code"), [("list archs", 0), ("report nothing-here", 1), ("report --nope", 2)]
)
def test_messages_to_a_full_pipe_are_discarded(arguments: str, code: int, full_pipe: int) -> None:
    command = [sys.executable, "-m", "adrbench", *arguments.split()]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=full_pipe, timeout=120
    )
    assert done.returncode == code


@pytest.mark.parametrize("arguments", ["--help", "list archs"])
@pytest.mark.parametrize("flags", [[], ["-u"]])
def test_results_to_a_full_pipe_are_one_error(
    arguments: str, flags: list[str], full_pipe: int
) -> None:
    command = [sys.executable, *flags, "-m", "adrbench", *arguments.split()]
    done = subprocess.run(
        command, check=False, stdout=full_pipe, stderr=subprocess.PIPE, text=True, timeout=120
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: standard output: it does not wait, and is full;")
    assert done.returncode == 1


@pytest.mark.parametrize("flags", [[], ["-u"]])
def test_output_is_buffered_as_the_interpreter_was_told(flags: list[str]) -> None:
    program = (
        "import os; from adrbench.cli.streams import prepare_streams; prepare_streams(); "
        "print('result'); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, *flags, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert done.stdout == ("result\n" if flags else "")


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
