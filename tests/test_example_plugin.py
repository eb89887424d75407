"""The example plugin, installed into a fresh environment and used through all commands."""

import json
import os
import resource
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MAX_HELP_SECONDS = 0.5
OWNER = "adrbench-example 0.1.0"
PROVIDED = {
    "architectures:wide-stem": OWNER,
    "datasets:gratings": OWNER,
    "methods:smooth": OWNER,
}
TRAIN = ("train", "gratings", "--arch", "wide-stem", "--method", "at+smooth", "--epochs", "1")
RUN = "gratings-wide-stem-smooth-seed0"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """An environment with the example; commands run in `directory`."""

    python: Path
    directory: Path

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments."""
        variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env=variables | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def adrbench(self, *arguments: str, code: int = 0) -> str:
        """Run a command, and return what it prints to stdout, or on failure to stderr."""
        done = self.run("-m", "adrbench", *arguments, code=code)
        return done.stderr if code else done.stdout

    def record(self, pattern: str) -> Any:
        """Return the only record with such a name."""
        (path,) = (self.directory / "results").glob(pattern)
        return json.loads(path.read_text())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the example beside this checkout and the packages of this environment.

    pip and setuptools are those of this environment, too.
    """
    directory = tmp_path_factory.mktemp("example")
    venv.create(directory / "environment")
    python = directory / "environment" / "bin" / "python"
    environment = Environment(python, directory)
    own = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout
    packages = [path for path in [*site.getsitepackages(), *sys.path] if "site-packages" in path]
    shared = "\n".join(dict.fromkeys([str(ROOT), *packages]))
    Path(own.strip(), "shared.pth").write_text(f"{shared}\n")
    source = directory / "source"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    environment.run("-m", "pip", "install", "--quiet", *offline, str(source))
    return environment


def test_list_names_what_it_adds(environment: Environment) -> None:
    rows = [" ".join(line.split()) for line in environment.adrbench("list").splitlines()]
    assert f"smooth targets: smoothed labels (Szegedy et al. 2016) ({OWNER})" in rows
    for start in ("wide-stem Two conv", "noise Random noise", "gratings Gray gratings"):
        assert any(row.startswith(start) and row.endswith(f"({OWNER})") for row in rows), start


def test_it_is_trained_attacked_and_reported(environment: Environment) -> None:
    planned = environment.adrbench(*TRAIN, "--smoothing", "0.5", "--dry-run")
    assert "--smoothing 0.5 given" in [" ".join(line.split()) for line in planned.splitlines()]
    environment.adrbench(*TRAIN, "--smoothing", "0.5")
    trained = environment.record(f"train-{RUN}.json")
    assert (trained["dataset"], trained["arch"], trained["method"]) == (
        "gratings",
        "wide-stem",
        "smooth",
    )
    assert trained["config"]["smoothing"] == 0.5
    assert trained["software"]["plugins"] == PROVIDED
    shown = environment.adrbench("attack", f"checkpoints/{RUN}/last.pt", "--suite", "noise")
    assert f"{RUN} last" in shown
    attacked = environment.record(f"{RUN}-last-*.json")
    assert (attacked["suite"], attacked["num_test"], attacked["num_classes"]) == ("noise", 100, 4)
    assert attacked["parameters"]["noise"]["samples"] == 20
    assert attacked["software"]["plugins"] == {"suites:noise": OWNER} | PROVIDED
    table = environment.adrbench("report", "results")
    for word in ("gratings", "wide-stem", "smooth", "noise"):
        assert word in table, table


def test_its_flag_is_checked(environment: Environment) -> None:
    message = environment.adrbench(*TRAIN, "--smoothing", "2", code=2)
    assert message == "error: --smoothing is 2: give a number from 0 to 1.\n"


def test_help_stays_quick_and_imports_neither_torch_nor_the_plugin(
    environment: Environment,
) -> None:
    """The time is that of the processor, since other processes may keep it busy."""
    seconds = min(measure(environment, ("-m", "adrbench", "--help")) for _ in range(3))
    assert seconds < MAX_HELP_SECONDS
    imported = environment.run("-X", "importtime", "-m", "adrbench", "--help").stderr
    modules = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "adrbench.cli.train" in modules
    assert not {"torch", "adrbench_example"} & modules


def measure(environment: Environment, arguments: Sequence[str]) -> float:
    """Return the processor time of a command in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment.run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
