"""The README and the pages in docs/: their links lead somewhere, and what they show runs."""

import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn

import adrbench
from adrbench import report
from adrbench.cli.app import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "results" / "published" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
#: Flags of the example plugin, which another test installs and uses.
PLUGIN_FLAGS = {"--smoothing"}
FEWER_EPOCHS = (r"--epochs \d+", "--epochs 1")


def name_page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


pages = pytest.mark.parametrize("page", PAGES, ids=name_page)


def find_blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code of a page in one language, "" where none is named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [code for named, code in found if named == language]


def find_commands(page: Path) -> list[list[str]]:
    """Return the arguments of every `adrbench` in the shell code of a page."""
    joined = re.sub(r"\$\w+", "0", "\n".join(find_blocks(page, "")).replace("\\\n", ""))
    found = re.findall(r"(?:^|\s)adrbench ((?:train|attack|inspect|report|list)\b[^\n|;]*)", joined)
    return [shlex.split(one, comments=True) for one in found]


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def run_commands(commands: Iterator[str] | list[str], directory: Path) -> str:
    """Run shell commands one by one in `directory`; return the output of the last one."""
    output = ""
    for command in commands:
        arguments = command.replace("adrbench", f"{shlex.quote(sys.executable)} -m adrbench", 1)
        done = subprocess.run(
            ["bash", "-c", arguments],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout
    return output


def run_python(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, "<documentation>", "exec"), names)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in find_anchors(path), f"{target}#{anchor}"


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


@pages
def test_commands_have_flags_that_exist(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    for name, *arguments in find_commands(page):
        if not PLUGIN_FLAGS & set(arguments):
            program.commands[name].make_context(name, arguments)


def test_the_page_on_statistics_has_every_footnote() -> None:
    page = " ".join((ROOT / "docs" / "statistics.md").read_text("utf-8").split())
    modules = pkgutil.iter_modules(report.__path__, f"{report.__name__}.")
    footnotes = [
        text
        for module in modules
        for name, text in vars(importlib.import_module(module.name)).items()
        if name.endswith("_FOOTNOTE")
    ]
    assert footnotes
    assert [text for text in footnotes if text not in page] == []


def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(find_blocks(README, "python"))
    for shown, quick in (
        ('"cifar10"', '"digits"'),
        ("n=1000", "n=20"),
        ('"autoattack"', '"pgd-20"'),
        ("steps=50, restarts=5", "steps=2, restarts=2"),
        ("epochs=2", "epochs=1"),
    ):
        assert shown in code
        code = code.replace(shown, quick)
    names: dict[str, Any] = {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}
    run_python(code, names)
    assert names["result"].adversarial.shape == names["x"].shape
    assert len(names["frame"]) == 1
    assert isinstance(names["average"], nn.Module)


@pytest.mark.slow
def test_the_session_prints_what_the_readme_shows(tmp_path: Path) -> None:
    first, *_ = find_blocks(README, "")
    commands = re.findall(r"^\$ (.+)$", first, re.MULTILINE)
    shown = re.sub(r"^\$ .+\n", "", first, flags=re.MULTILINE)
    printed = run_commands([re.sub(*FEWER_EPOCHS, one) for one in commands], tmp_path)

    def without_figures(text: str) -> list[str]:
        return [re.sub(r" +\d+\.\d\d\b", " #", line).rstrip() for line in text.splitlines()]

    assert without_figures(printed)[: len(shown.splitlines())] == without_figures(shown)


@pytest.mark.slow
def test_the_page_on_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = find_blocks(ROOT / "docs" / "python.md", "python")
    complete = [code for code in blocks if "    ..." not in code]
    assert len(complete) == len(blocks) - 1
    names: dict[str, Any] = {}
    for code in complete:
        run_python(code.replace("n=100", "n=20").replace("epochs=2", "epochs=1"), names)
    assert set(names["frame"]["eps"]) == {0.02, 0.05, 0.1}
    assert (tmp_path / "linear.npz").exists()
    (reading,) = find_blocks(ROOT / "docs" / "files.md", "python")
    run_python(reading, names)
    assert all(isinstance(value, torch.Tensor) for value in names["state"].values())


@pytest.mark.slow
def test_the_page_on_extending_runs(tmp_path: Path) -> None:
    page = ROOT / "docs" / "extending.md"
    for code in find_blocks(page, "python"):
        named = re.match(r"# (\w+\.py)\n", code)
        assert named, code
        (tmp_path / named[1]).write_text(code, "utf-8")
    lines = [line for block in find_blocks(page, "") for line in block.splitlines()]
    plain = [line for line in lines if "plugin" not in line and "gratings" not in line]
    commands = [re.sub(*FEWER_EPOCHS, one) for one in plain if "list methods" not in one]
    assert len(commands) == 4
    run_commands(commands, tmp_path)
    suites = set(adrbench.load_results(tmp_path / "results")["suite"])
    assert len(suites) == 2


def test_the_example_loop_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    torch.manual_seed(0)
    model = importlib.import_module("train_with_adr").train(epochs=1, batch_size=128)
    x, y = adrbench.load_examples("digits", n=20)
    result = adrbench.evaluate(model, x, y, suite="fgsm", eps=0.1)
    assert result.record.n == 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_is_one_line_with_all_cells(page: Path) -> None:
    width = None
    for line in map(str.strip, page.read_text().splitlines()):
        if not line.startswith("|"):
            assert not line.endswith("|"), line
            width = None
            continue
        num_bars = re.sub(r"`[^`]*`|\\\|", "", line).count("|")
        width = width or num_bars
        assert line.endswith("|"), line
        assert num_bars == width, line
