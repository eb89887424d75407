"""The benchmarks: turns alternate, ratios are right, and the scripts run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.harness.document import render_table
from benchmarks.harness.timing import Comparison, Contender, Timing, compare, interleave

ROOT = Path(__file__).parents[2]


def test_contenders_take_turns() -> None:
    order: list[str] = []
    samples = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert {name: len(drawn) for name, drawn in samples.items()} == {"a": 3, "b": 3}


def test_a_contender_is_built_once_and_measured_every_round() -> None:
    built: list[str] = []

    def build() -> object:
        built.append("built")
        return lambda: torch.ones(10)

    contender = Contender(name="ours", build=build, warmup=0)  # type: ignore[arg-type]
    measured = compare([contender], rounds=3, device=torch.device("cpu"))["ours"]
    assert len(measured.samples) == 3
    assert all(sample > 0 for sample in measured.samples)
    assert len(built) == 2, "once to load what is loaded on first use, once to be measured"


def test_ratios_by_hand() -> None:
    """Medians 2 and 6 make 3; the rounds make 5 / 1, 6 / 2 and 7 / 4."""
    row = Comparison(
        name="row",
        contenders=(
            Timing(name="ours", samples=(1.0, 2.0, 4.0)),
            Timing(name="reference", samples=(5.0, 6.0, 7.0)),
        ),
    )
    written = row.to_json()
    assert written["ratio"] == 3.0
    assert written["round_ratios"] == [5.0, 3.0, 1.75]


def test_tables_line_up() -> None:
    lines = render_table([{"": "one", "ratio": "2.00"}, {"": "another", "ratio": "10.00"}])
    assert len({len(line) for line in lines.splitlines()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "train_step --arch small-cnn --method adr+awp,trades+adr --batch-size 8",
        "attack_gradient --arch small-cnn",
        "autoattack --n 2 --stage apgd-ce,square",
        "report",
        "page",
        "startup",
    ],
    ids=lambda line: line.split()[0],
)
def test_benchmarks_run(line: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    name, *flags = line.split()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *flags, "--quick", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["benchmark"] == name
    assert all(row["ratio"] > 0 for row in document["rows"])
    assert all(f"| {row['name']} " in done.stdout for row in document["rows"])
