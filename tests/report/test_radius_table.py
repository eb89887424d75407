"""Radii as columns: what was attacked in the same way at several eps, in every format."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from adrbench.config.threat import ThreatModel
from adrbench.report import FORMATS, Report, build_report, render, select_tables
from adrbench.report.radius_table import RADIUS
from adrbench.results.records import AttackRecord, Record
from report_records import attack_record, figure, foreign_record, table, train_record

RADII = (2, 4, 8)


def at(k: float, record: AttackRecord, **changes: Any) -> AttackRecord:
    """Return `record` with a radius of k/255 and the default step of that radius."""
    eps = k / 255
    parameters = {"steps": 20, "alpha": eps / 4, "restarts": 1}
    threat = ThreatModel(norm="Linf", eps=eps)
    given: dict[str, Any] = {
        "threat_model": threat,
        "parameters": parameters,
        "suite": "pgd-20",
    } | changes
    return replace(record, **given)


def at_radii(record: AttackRecord, radii: Sequence[float] = RADII) -> list[Record]:
    """Return `record` at each radius, with 1,000 robust images fewer for each."""
    counts = (5_000 - 1_000 * i for i in range(len(radii)))
    return [at(k, record, robust_correct=n) for k, n in zip(radii, counts, strict=True)]


def names(report: Report) -> list[str]:
    return [one.name for one in report.tables if not one.is_repeated]


def test_radii_are_columns_of_one_table_in_order() -> None:
    records = at_radii(foreign_record(8_000, 0, "mine"))[::-1]
    found = table(build_report(records), RADIUS)
    (row,) = found.rows
    values = [column for column in found.columns if column.eps]
    assert [column.label for column in values] == ["2/255", "4/255", "8/255"]
    assert [figure(row.cells[column.key]).mean for column in values] == [50.0, 40.0, 30.0]
    assert (row.cells["method"], row.cells["suite"]) == ("mine", "pgd-20")
    assert figure(row.cells["clean"]).mean == 80.0
    assert found.title == "Robust accuracy by radius (%), cifar10, Linf"


def test_a_radius_that_is_no_multiple_is_written_as_a_decimal() -> None:
    records = at_radii(foreign_record(8_000, 0, "mine"), (8, 25.5))
    labels = [c.label for c in table(build_report(records), RADIUS).columns if c.eps]
    assert labels == ["8/255", "0.1"]


def test_rows_are_models_checkpoints_and_suites() -> None:
    records = [
        record
        for method in ("at", "adr")
        for selection in ("best", "last")
        for seed in (0, 1)
        for record in at_radii(
            attack_record(8_000, 0, method=method, selection=selection, seed=seed)
        )
    ]
    records += [
        at(k, foreign_record(8_000, 100, "mine"), suite="autoattack", parameters={}) for k in (2, 4)
    ]
    rows = [row.cells for row in table(build_report(records), RADIUS).rows]
    assert [(row["method"], row["checkpoint"], row["suite"], row["seeds"]) for row in rows] == [
        ("at", "best", "pgd-20", 2),
        ("at", "last", "pgd-20", 2),
        ("adr", "best", "pgd-20", 2),
        ("adr", "last", "pgd-20", 2),
        ("mine", "file", "autoattack", 1),
    ]
    assert rows[4].get("robust 8/255") is None


@pytest.mark.parametrize(
    "other",
    [
        {"n": 9_000},
        {"weights_sha256": "9" * 64},
        {"data_sha256": "9" * 64},
        {"precision": "bfloat16"},
        {"parameters": {"steps": 20, "alpha": 0.5, "restarts": 1}},
        {"parameters": {"steps": 20, "alpha": 4 / 255 / 4, "restarts": 5}},
        {"suite": "fgsm"},
        {"dataset": "cifar100"},
        {"threat_model": ThreatModel(norm="L2", eps=4 / 255)},
    ],
    ids="-".join,
)
def test_what_differs_in_anything_else_is_not_joined(other: dict[str, Any]) -> None:
    record = foreign_record(8_000, 100, "mine")
    report = build_report([at(8, record), at(4, record, **other)])
    assert RADIUS not in [one.name for one in report.tables]


def test_a_step_may_be_the_same_fraction_of_eps_or_the_same_number() -> None:
    """Steps of 1/255 at 4/255 and 2/255 at 8/255 are eps / 4; 1/255 at both is one number."""
    record = foreign_record(8_000, 100, "mine")
    for steps in ((1, 2), (1, 1)):
        records = [
            at(k, record, parameters={"alpha": step / 255})
            for k, step in zip((4, 8), steps, strict=True)
        ]
        assert len(table(build_report(records), RADIUS).rows) == 1


def test_both_kinds_of_steps_have_rows_that_say_which() -> None:
    record = foreign_record(8_000, 100, "mine")
    records = [at(k, record, parameters={"alpha": k / 4 / 255}) for k in (4, 8)]
    records += [at(k, record, parameters={"alpha": 0.5 / 255}) for k in (4, 8)]
    labels = [row.cells["suite"] for row in table(build_report(records), RADIUS).rows]
    assert labels == ["pgd-20 (alpha 0.00196078)", "pgd-20 (alpha 0.25 eps)"]


def test_several_models_of_a_user_are_told_apart() -> None:
    records = at_radii(foreign_record(8_000, 0, "timm-resnet18", weights_sha256="a" * 64))
    records += at_radii(foreign_record(8_000, 0, "nets-mine", weights_sha256="b" * 64))
    records += at_radii(foreign_record(8_000, 0, "nets-mine", weights_sha256="c" * 64))
    for name in (RADIUS, "robust accuracy"):
        rows = next(t for t in build_report(records).tables if t.name == name).rows
        assert [(row.cells["method"], row.footnotes) for row in rows] == [
            ("nets-mine", ("weights and normalization with sha256 bbbbbbbbbbbb",)),
            ("nets-mine", ("weights and normalization with sha256 cccccccccccc",)),
            ("timm-resnet18", ()),
        ]


def test_tables_of_one_radius_are_left_out_for_people_if_they_repeat_it() -> None:
    records = at_radii(foreign_record(8_000, 0, "mine"))
    report = build_report(records, baselines=False)
    assert names(report) == [RADIUS, "evaluation"]
    assert len([one for one in report.tables if one.name == "robust accuracy"]) == len(RADII)
    for form in ("terminal", "markdown", "latex"):
        assert render(report, form).count("Robust accuracy") == 1
    selected = select_tables(report, ["accuracy"])
    assert render(selected, "markdown").count("### Robust accuracy") == len(RADII)
    both = select_tables(report, ["accuracy,radius"])
    assert render(both, "markdown").count("### Robust accuracy") == 1


def test_a_table_of_one_radius_with_more_than_that_stays() -> None:
    records = at_radii(foreign_record(8_000, 0, "mine"))
    other = at(8, foreign_record(8_000, 10, "other"))
    assert names(build_report([*records, other], baselines=False)).count("robust accuracy") == 1
    ranked = [at(k, foreign_record(8_000, 10, "mine"), suite="autoattack") for k in RADII]
    assert names(build_report(ranked)).count("robust accuracy") == 1


def test_footnotes_that_hold_at_some_radii_name_them() -> None:
    record = attack_record(8_000, 100, published_test_set=False)
    records = [at(k, record) for k in (2, 4)] + [at(8, record, warnings=("masked",))]
    records += [at(k, replace(record, seed=1)) for k in (2, 4)]
    (row,) = table(build_report(records), RADIUS).rows
    assert row.footnotes == (
        "own test set: not comparable with published figures",
        "eps 8/255: warning (seed 0): masked",
    )
    assert [len(figure(row.cells[f"robust {k}/255"]).seeds) for k in RADII] == [2, 2, 1]


def test_the_csv_repeats_the_row_for_each_radius() -> None:
    report = build_report(at_radii(foreign_record(8_000, 0, "mine")), baselines=False)
    lines = csv.DictReader(io.StringIO(render(report, "csv")))
    own = [line for line in lines if line["table"] == RADIUS]
    shown = [(line["suite"], line["measure"], line["value"]) for line in own]
    assert shown == [
        ("pgd-20", "clean", "80.0"),
        ("pgd-20", "robust", "50.0"),
        ("pgd-20", "robust", "40.0"),
        ("pgd-20", "robust", "30.0"),
    ]
    assert [float(line["eps"]) for line in own if line["eps"]] == [k / 255 for k in RADII]
    assert {line["method"] for line in own} == {"mine"}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_all_radii(form: str) -> None:
    shown = render(build_report(at_radii(foreign_record(8_000, 0, "mine"))), form, width=80)
    for value in ("50.0", "40.0", "30.0"):
        assert value in shown
    assert "mine" in shown


# Evaluations without an attack


def without_attack(record: AttackRecord, **changes: Any) -> AttackRecord:
    robust = changes.get("clean_correct", record.clean_correct)
    return replace(record, suite="clean", parameters={}, robust_correct=robust, **changes)


@pytest.mark.parametrize("form", FORMATS)
def test_a_clean_evaluation_has_no_robust_accuracy(form: str) -> None:
    report = build_report([without_attack(foreign_record(8_000, 0, "mine", dataset="own"))])
    (only,) = report.tables
    assert [column.label for column in only.columns if column.role == "value"] == ["clean"]
    assert only.title == "Clean accuracy (%), own"
    shown = render(report, form)
    assert "80.0" in shown
    assert "robust clean" not in shown


def test_a_clean_evaluation_joins_the_rows_of_its_model() -> None:
    """It is newer than the attacks, so that its clean count of 8,001 is shown with them."""
    mine = foreign_record(8_000, 0, "mine")
    newest = without_attack(at(1, mine), clean_correct=8_001, created="2027-01-01T00:00:00")
    report = build_report([*at_radii(mine, (4, 8)), newest], baselines=False)
    assert names(report) == [RADIUS, "evaluation"]
    tables = [one for one in report.tables if one.name == "robust accuracy"]
    assert [one.title[-5:] for one in tables] == ["4/255", "8/255"]
    for one in (*tables, table(report, RADIUS)):
        assert [figure(row.cells["clean"]).correct for row in one.rows] == [(8_001,)]
    suites = [row.cells["suite"] for row in table(report, "evaluation").rows]
    assert suites == ["pgd-20, Linf 2 radii"]


def test_a_clean_evaluation_of_fewer_seeds_has_no_footnote() -> None:
    records = [attack_record(8_000, 4_700, seed=seed) for seed in (0, 1)]
    (row,) = table(build_report([*records, without_attack(records[0])]), "robust accuracy").rows
    assert row.footnotes == ()


def test_a_model_with_only_a_clean_evaluation_stands_among_the_others() -> None:
    records: list[Record] = [
        attack_record(8_000, 4_700),
        without_attack(foreign_record(9_000, 0, "mine")),
        train_record(),
    ]
    rows = table(build_report(records), "robust accuracy").rows
    assert [row.cells["method"] for row in rows] == ["at", "mine"]
    assert rows[1].cells.get("robust autoattack") is None


# Methods of plugins that are not installed


@pytest.mark.parametrize(
    ("weights", "shown"), [("student", "at+myterm"), ("average", "at+myterm+wa")]
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_method_that_is_unknown_here_is_shown_as_it_is_stored(
    weights: str, shown: str, form: str
) -> None:
    own = {"method": "at+myterm", "weights": weights}
    records: list[Record] = [attack_record(8_000, 4_700 + s, seed=s, **own) for s in (0, 1)]
    records += [attack_record(8_000, 4_700, method="trades+adr+wa", weights="average")]
    records += [train_record(method="at+myterm", config={"method": "at+myterm"})]
    report = build_report(records)
    found = table(report, "robust accuracy")
    rows = [(row.cells["method"], row.cells["seeds"]) for row in found.rows]
    assert rows == [("trades+adr+wa", 1), (shown, 2)]
    note = f"with components that are not installed here: {shown}."
    assert [one for one in found.notes if "installed" in one] == [note]
    assert "paired" not in [one.name for one in report.tables]
    assert shown in render(report, form)
