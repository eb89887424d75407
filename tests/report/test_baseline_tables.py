"""Our rows in the tables of RobustBench and the paper: ranked correctly, or not at all."""

from typing import Any

import pytest

from adrbench.config.threat import ThreatModel
from adrbench.report import (
    build_report,
)
from adrbench.report.baseline_tables import PAPER_NOTE
from adrbench.results.baselines import Rank
from report_records import (
    accuracy_rows,
    attack_record,
    figure,
    foreign_record,
    table,
)


def test_ranks_by_hand() -> None:
    """RobustBench has ResNet-18 at 55.54, 52.48, 51.06, 40.41, 38.50, 1.35: 51.06 ties for 3rd."""
    report = build_report([attack_record(8_000, 5_106)])
    entries = table(report, "robustbench").rows
    better = [row for row in entries if not row.is_ours and row.cells["robust"] > 51.06]  # type: ignore[operator]
    (ours,) = [row for row in entries if row.is_ours]
    assert len(better) == 2
    assert ours.cells["rank_in_arch"] == 3
    assert table(report, "robust accuracy").rows[0].cells["rank"] == Rank(place=69, of=94)


def test_a_zoo_model_does_not_compete_with_itself() -> None:
    """Measured 0.01 lower than published, it keeps its place among the other 92."""
    record = foreign_record(8_024, 5_105, "robustbench:Addepalli2021Towards_RN18", arch="zoo")
    (row,) = accuracy_rows([record])
    assert row["rank"] == Rank(place=69, of=93)
    assert row["arch"] == "ResNet-18"


@pytest.mark.parametrize(
    "change",
    [
        {"published_test_set": False},
        {"n": 9_999},
        {"suite": "pgd-20"},
        {"suite": "autoattack-plus"},
        {"precision": "bfloat16"},
        {"split": "val"},
        {"dataset": "tiny-imagenet"},
        {"threat_model": ThreatModel(norm="Linf", eps=0.1)},
        {"threat_model": ThreatModel(norm="L2", eps=8 / 255)},
    ],
    ids="-".join,
)
def test_other_measurements_are_never_ranked(change: dict[str, Any]) -> None:
    report = build_report([attack_record(8_000, 5_000, **change)])
    (row,) = table(report, "robust accuracy").rows
    assert row.cells["rank"] is None
    assert "rank" not in [column.key for column in table(report, "robust accuracy").columns]
    ours = [r for t in report.tables if t.name == "robustbench" for r in t.rows if r.is_ours]
    assert ours == []


@pytest.mark.parametrize(
    "change", [{"arch": "small-cnn"}, {"dataset": "digits"}, {"published_test_set": False}]
)
def test_baselines_show_only_where_they_apply(change: dict[str, Any]) -> None:
    report = build_report([attack_record(8_000, 5_000, **change)])
    assert [table.name for table in report.tables] == ["robust accuracy", "evaluation"]


def test_baselines_can_be_left_out() -> None:
    report = build_report([attack_record(8_000, 5_000)], baselines=False)
    assert [table.name for table in report.tables] == ["robust accuracy", "evaluation"]
    assert report.tables[0].rows[0].cells["rank"] is None


def test_the_paper_is_shown_with_our_figures_and_its_note() -> None:
    report = build_report([attack_record(8_000, 4_850, method="adr")])
    found = table(report, "paper")
    rows = {row.cells["method"]: row.cells for row in found.rows}
    assert rows["adr"]["robust"] == 50.39
    assert figure(rows["adr"]["our_robust"]).mean == 48.5
    assert rows["adr+wa"]["our_robust"] is None
    assert PAPER_NOTE in found.notes


def test_part_of_the_test_set_is_not_compared_with_the_paper() -> None:
    found = table(build_report([attack_record(800, 480, method="adr", n=1_000)]), "paper")
    assert "our_robust" not in [column.key for column in found.columns]
