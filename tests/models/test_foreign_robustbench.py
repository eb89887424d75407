"""A `robustbench` that is not RobustBench's own is rejected in one sentence."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adrbench.errors import CheckpointError
from adrbench.models import robustbench_zoo as zoo
from messages import assert_one_sentence
from runner import command

OLD_UTILS = "all_models, BenchmarkDataset, ThreatModel, load_model = {}, str, str, print\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory at the front of the path, with RobustBench's own modules forgotten."""
    own = {name: sys.modules.pop(name) for name in _loaded()}
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(own)


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] == "robustbench"]


def install(site: Path, utils: str, owner: str | None = None) -> Path:
    """Write a package `robustbench`, and the metadata of the distribution that installed it."""
    folder = site / "robustbench"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "utils.py").write_text(utils)
    if owner:
        metadata = site / f"{owner}-3.5.1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {owner}\nVersion: 3.5.1\n"
        )
        (metadata / "top_level.txt").write_text(f"robustbench\n{owner}\n")
    importlib.invalidate_caches()
    return folder


def refusal() -> str:
    with pytest.raises(CheckpointError) as caught:
        zoo.zoo_names("cifar10", "Linf")
    return str(caught.value)


def test_an_older_copy_in_another_package_is_named(site: Path) -> None:
    """Torchattacks' wheel holds a copy that imports and lacks what later versions have."""
    folder = install(site, OLD_UTILS, owner="torchattacks")
    for _ in range(2):
        assert_one_sentence(
            refusal(),
            f"robustbench in {folder} was overwritten by torchattacks",
            "robustbench.utils has no download_gdrive_new",
            "pip uninstall torchattacks && pip install --force-reinstall",
        )


@pytest.mark.parametrize(
    ("utils", "reason"),
    [
        ("raise RuntimeError('old\\nand broken.')", "(old and broken)"),
        ("def f(:", "invalid syntax"),
        ("from robustbench.gone import x", "No module named 'robustbench.gone'"),
        ("from robustbench import gone", "cannot import name 'gone'"),
        ("import sys; sys.no_such_attribute", "no attribute 'no_such_attribute'"),
        (OLD_UTILS, "has no download_gdrive_new"),
    ],
)
def test_any_failure_of_the_import_is_one_sentence(site: Path, utils: str, reason: str) -> None:
    folder = install(site, utils)
    words = (f"robustbench in {folder} is damaged", reason, "pip install --force-reinstall")
    assert_one_sentence(refusal(), *words)


def test_a_missing_dependency_is_to_be_installed(site: Path) -> None:
    install(site, "import no_such_dependency")
    assert_one_sentence(refusal(), "No module named 'no_such_dependency'", f"`{zoo.INSTALL}`")


def test_a_target_of_the_zoo_is_refused_without_a_traceback(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)
    install(site, OLD_UTILS, owner="torchattacks")
    outcome = command("attack", "robustbench:Rice2020Overfitting", "--dataset", "cifar10")
    assert outcome.code == 1
    (line,) = outcome.lines
    assert_one_sentence(line, "error: robustbench in", "overwritten by torchattacks")
