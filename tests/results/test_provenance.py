"""The provenance of results."""

import platform
import re
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
import torch

import adrbench
from adrbench.attacks.autoattack_package import describe_package
from adrbench.registry import find_plugin
from adrbench.results import provenance
from plugins import Installer


def test_versions_are_those_that_run() -> None:
    versions = provenance.describe_software().versions
    assert versions["python"] == platform.python_version()
    assert torch.__version__.partition("+")[0] == versions["torch"].partition("+")[0]
    assert {"numpy", "torchvision", "pyautoattack", "robustbench"} <= versions.keys()


def test_plugins_in_use_are_named(install_plugin: Installer) -> None:
    points = {"adrbench.suites": {"weak": "weak_attacks:build"}}
    install_plugin(points, {"weak_attacks": "build = print"})
    plugin = find_plugin("suites", "weak")
    assert plugin is not None
    plugin.load()
    software = provenance.describe_software({"suites": ["weak"], "architectures": ["resnet18"]})
    assert software.plugins == {"suites:weak": "extra 1.2"}
    assert provenance.describe_software().plugins == {}


def hide_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every distribution appear without metadata, as in a checkout put on the path."""

    def find_nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", find_nothing)


def test_a_package_without_metadata_has_an_unknown_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_metadata(monkeypatch)
    versions = provenance.describe_software().versions
    assert versions["torch"] == versions["pyautoattack"] == "unknown"
    assert describe_package() == "pyautoattack unknown"


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no_such_package"))
    assert provenance.describe_software().versions.keys() == {"python", "torch"}


def checkout(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository of one commit in which this package would lie, and return its file."""
    file = place / "adrbench" / "results" / "provenance.py"
    file.parent.mkdir(parents=True)
    for source in (file, file.parents[1] / "api.py"):
        source.write_text("first")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for line in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(place), *line], check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return file


def test_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = checkout(tmp_path / "clone", monkeypatch)
    clean = provenance.describe_software()
    assert clean.commit is not None
    assert re.fullmatch("[0-9a-f]{40}", clean.commit)
    assert clean.dirty is False
    (file.parent / "untracked.txt").write_text("such as results and checkpoints")
    assert provenance.describe_software().dirty is False
    (file.parents[1] / "api.py").write_text("changed")
    assert provenance.describe_software().dirty is True


def test_outside_of_a_checkout_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "adrbench" / "results" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(file))
    software = provenance.describe_software()
    assert (software.commit, software.dirty) == (None, None)


def test_an_installed_package_ignores_a_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment often lies within somebody's own repository."""
    checkout(tmp_path, monkeypatch)
    inside = tmp_path / ".venv" / "lib" / "site-packages" / "adrbench" / "results" / "provenance.py"
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(inside))
    assert provenance.describe_software().commit is None


def test_no_git_means_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    software = provenance.describe_software()
    assert (software.commit, software.dirty) == (None, None)


def test_the_description_of_the_device() -> None:
    words = provenance.describe_device(torch.device("cpu"))
    assert re.fullmatch(rf".+, {torch.get_num_threads()} threads?", words)


def test_now_is_in_utc_to_the_second() -> None:
    text = provenance.now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", text)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(seconds=30)


def test_the_whole_package_is_checked_for_changes() -> None:
    assert Path(provenance.__file__).parents[1] == Path(adrbench.__file__).parent
