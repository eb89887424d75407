"""Imports run down the list in pyproject.toml, which CONTRIBUTING.md shows."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = ("adrbench.cli", "adrbench.config", "adrbench.report", "adrbench.results")


def layers() -> list[str]:
    """Return the contract's layers, the highest first; independent ones share an entry."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    found: list[str] = contract["layers"]
    return found


def test_imports_run_down_the_list() -> None:
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_contributing_shows_the_list() -> None:
    shown = "\n".join(f"    {layer}" for layer in layers())
    assert shown in (ROOT / "CONTRIBUTING.md").read_text()


def test_tests_lie_as_the_package_lies() -> None:
    packages = {path.parent.name for path in (ROOT / "adrbench").glob("*/__init__.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == packages | {"benchmarks", "hostile"}


def test_what_does_not_import_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in WITHOUT_TORCH
        for path in (ROOT / package.replace(".", "/")).rglob("*.py")
        if package != "adrbench.cli" or path.name == "__init__.py"
    ]
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(modules)}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
