"""Imports run one way: a module knows those in rows above its own and nothing else of ours."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import adrbench

PACKAGE = Path(adrbench.__file__).parent
ROWS = (
    ("baselines", "errors", "notes", "schedules", "schema", "seeds", "stopping"),
    ("files", "graphs", "pickles", "threat", "tokens", "world"),
    ("joining", "records"),
    (
        "config",
        "datasets",
        "devices",
        "models",
        "presets",
        "progress",
        "provenance",
        "torch_files",
    ),
    ("inference", "report"),
    ("attacks", "display", "replayed"),
    ("checkpoint", "methods"),
    ("evaluation", "listing", "runs", "subjects"),
    ("attacking", "saving", "stepping"),
    ("resuming",),
    ("training",),
    ("commands",),
    ("cli",),
)
LEVELS = {module: level for level, row in enumerate(ROWS) for module in row}
WITHOUT_TORCH = (
    *("baselines", "cli", "config", "errors", "presets", "provenance", "records", "report"),
    *("schedules", "schema", "threat", "tokens"),
)
#: The package's own two files, which look modules up by name or start the program.
TOP = ("__init__", "__main__")


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield what `path` imports of ours, wherever it does, as the first name below `adrbench`."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "adrbench":
                yield rest.partition(".")[0]


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if module_of(path) not in TOP]


def test_every_module_has_its_row() -> None:
    assert {module_of(path) for path in FILES} == set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_only_go_up(path: Path) -> None:
    own = module_of(path)
    for name in imports(path):
        if name not in (own, "__version__"):
            assert LEVELS[name] < LEVELS[own], f"{path} imports {name}"


def test_modules_that_do_not_import_torch() -> None:
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(names(WITHOUT_TORCH))}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def names(modules: tuple[str, ...]) -> list[str]:
    return [f"adrbench.{module}" for module in modules]
