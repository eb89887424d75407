"""Running the command line in this process, and comparing directories before and after."""

import os
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from adrbench.cli.app import app

#: The options of the shortest training run.
QUICK = ("--epochs", "1", "--steps", "1")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on stderr that are neither notes nor progress."""
        skipped = ("note: ", "Downloading ")
        return [line for line in self.err.splitlines() if not line.startswith(skipped)]

    @property
    def notes(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("note: ")]


def command(*arguments: str | Path) -> Outcome:
    """Run a command; raise any exception that the command line did not turn into an exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(code=result.exit_code, out=result.stdout, err=result.stderr)


def succeed(*arguments: str | Path) -> Outcome:
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def train_in(directory: Path) -> Path:
    """Train a short run of `at` on the digits, called "run", in a directory; return that."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        succeed("train", "digits", "--method", "at", "--name", "run", *QUICK)
    finally:
        os.chdir(before)
    return directory


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return the contents of each file below a directory by path, and None for folders."""
    found: dict[str, bytes | None] = {}
    for parent, folders, files in os.walk(directory):
        found |= {str(Path(parent, name).relative_to(directory)): None for name in folders}
        for name in files:
            path = Path(parent, name)
            found[str(path.relative_to(directory))] = path.read_bytes()
    return found
