"""`adrbench list baselines`: what is published on a data set, without results of one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

import adrbench
from adrbench.report.published import published_report
from adrbench.results.baselines import robustbench
from runner import command, succeed

ROOT = Path(adrbench.__file__).parents[1]


def titles(*arguments: str) -> list[str]:
    lines = succeed("list", "baselines", *arguments).out.splitlines()
    return [line for line in lines if line.startswith(("RobustBench", "ADR paper"))]


def test_the_summary_says_how_to_see_the_rows() -> None:
    lines = succeed("list", "baselines").out.splitlines()
    shown = lines[-1].partition("adrbench ")[2].split()
    assert shown == ["list", "baselines", "--dataset", "cifar10", "--norm", "Linf"]
    assert succeed(*shown).out.startswith("RobustBench (%), cifar10, Linf")


def test_a_data_set_has_a_table_for_each_threat_model_and_source() -> None:
    assert titles("--dataset", "cifar10") == [
        "RobustBench (%), cifar10, L2 0.5",
        "RobustBench (%), cifar10, Linf 0.031",
        "RobustBench (%), cifar10, Linf 8/255",
        "ADR paper (%), cifar10, Linf 8/255",
    ]
    assert titles("--dataset", "tiny-imagenet") == ["ADR paper (%), tiny-imagenet, Linf 8/255"]


@pytest.mark.parametrize("eps", ["8/255", "0.03137255"])
def test_norm_and_eps_select_threat_models(eps: str) -> None:
    assert titles("--dataset", "cifar10", "--norm", "L2") == ["RobustBench (%), cifar10, L2 0.5"]
    assert titles("--dataset", "cifar10", "--eps", eps) == [
        "RobustBench (%), cifar10, Linf 8/255",
        "ADR paper (%), cifar10, Linf 8/255",
    ]


def test_rows_are_those_of_the_leaderboard_by_rank() -> None:
    board, paper = published_report("cifar10", "Linf", 8 / 255).tables
    entries = robustbench("cifar10", "Linf", 8 / 255)
    assert [row.cells["method"] for row in board.rows] == [entry.model_id for entry in entries]
    ranks = [row.cells["rank"] for row in board.rows]
    better = [sum(one.robust_acc > entry.robust_acc for one in entries) for entry in entries]
    assert ranks == [1 + number for number in better]
    (own,) = [row for row in board.rows if row.cells["method"] == "Rice2020Overfitting"]
    assert {key: own.cells[key] for key in ("arch", "clean", "robust", "extra_data", "source")} == {
        "arch": "WRN-34-20",
        "clean": 85.34,
        "robust": 53.42,
        "extra_data": "no",
        "source": "ICML 2020",
    }
    assert {row.cells["method"] for row in paper.rows} >= {"adr", "adr+wa", "adr+wa+awp"}


def test_an_entry_that_is_not_ranked_by_autoattack_says_so() -> None:
    for eps in (0.031, 8 / 255):
        entries = {one.model_id: one for one in robustbench("cifar10", "Linf", eps)}
        for row in published_report("cifar10", "Linf", eps).tables[0].rows:
            entry = entries[str(row.cells["method"])]
            is_marked = any(text.startswith("ranked by") for text in row.footnotes)
            assert is_marked == (entry.external_acc not in (None, entry.autoattack_acc))
            assert row.cells["robust"] == entry.autoattack_acc


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet", "tiny-imagenet"])
def test_rows_fit_80_columns(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = succeed("list", "baselines", "--dataset", dataset).out
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("baselines --dataset digits", ("baselines on 'digits'", "cifar10, cifar100, imagenet")),
        ("baselines --dataset cifar100 --norm L2", ("cifar100 under L2", "choose from Linf 8/255")),
        ("baselines --dataset cifar10 --eps 0.3", ("cifar10 under eps 0.3", "L2 0.5")),
        ("baselines --dataset cifar10 --norm linf", ("unknown norm 'linf'", "Linf")),
        ("baselines --dataset cifar10 --eps x", ("--eps is 'x'",)),
        ("baselines --norm L2", ("give --dataset",)),
        ("suites --dataset cifar10", ("`adrbench list baselines`",)),
        ("--dataset cifar10", ("`adrbench list baselines`",)),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(
    arguments: str, parts: tuple[str, ...]
) -> None:
    outcome = command("list", *arguments.split())
    assert (outcome.code, outcome.out) == (2, "")
    for part in parts:
        assert part in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_rows_are_listed_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")
    words = ["adrbench", "list", "baselines", "--dataset", "cifar10"]
    code = f"import sys; sys.argv = {words}; from adrbench.cli import main; main()"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Rice2020Overfitting" in done.stdout
