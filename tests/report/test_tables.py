"""What shares a row, what is marked, and what best and last make of each other."""

import math
from typing import Any

import pytest

from adrbench.report import (
    FORMATS,
    build_report,
    render,
)
from adrbench.report.footnotes import SHARED_NOTE
from adrbench.results.records import Record, Threat
from report_records import (
    accuracy_rows,
    attack_record,
    digits_config,
    figure,
    foreign_record,
    table,
    train_record,
)


def test_seeds_make_one_row() -> None:
    rows = accuracy_rows([attack_record(8_000, 4_700 + 100 * s, seed=s) for s in (0, 1, 2)])
    assert len(rows) == 1
    assert rows[0]["seeds"] == 3
    assert figure(rows[0]["robust autoattack"]).mean == 48.0
    assert figure(rows[0]["robust autoattack"]).std == 1.0


def test_one_adr_run_makes_two_rows() -> None:
    records = [
        attack_record(8_000, robust, method="adr", weights=weights)
        for weights, robust in (("student", 4_800), ("average", 4_900))
    ]
    assert [row["method"] for row in accuracy_rows(records)] == ["adr", "adr+wa"]


SETTINGS = (digits_config(), digits_config(epochs=60, lr=0.2, nesterov=False))


def two_settings(*, trained: bool, runs: tuple[str, str]) -> list[Record]:
    """Return best and last of two runs of one method, and perhaps their training records."""
    records: list[Record] = [
        attack_record(8_000, 4_700, selection=selection, run=run, training_sha256=config.sha256())
        for run, config in zip(runs, SETTINGS, strict=True)
        for selection in ("best", "last")
    ]
    if trained:
        records += [
            train_record(run=run, config=config.to_json())
            for run, config in zip(runs, SETTINGS, strict=True)
        ]
    return records


SAME_NAME = ("cifar10-resnet18-at-seed0", "cifar10-resnet18-at-seed0")
OTHER_NAME = ("cifar10-resnet18-at-seed0", "cifar10-long-at-seed0")


@pytest.mark.parametrize("table_name", ["robust accuracy", "robust overfitting"])
@pytest.mark.parametrize("runs", [SAME_NAME, OTHER_NAME], ids=["same name", "other name"])
def test_rows_of_other_settings_say_which(table_name: str, runs: tuple[str, str]) -> None:
    report = build_report(two_settings(trained=True, runs=runs), baselines=False)
    marks = [row.marks[0] for row in table(report, table_name).rows]
    assert sorted(marks) == [
        "settings: --epochs 30, --lr 0.05, with --nesterov",
        "settings: --epochs 60, --lr 0.2, without --nesterov",
    ]


def test_settings_that_a_row_does_not_use_do_not_mark_it() -> None:
    """The student of `at+wa` is `at`, however its average was made; the average is not."""
    configs = (digits_config(), digits_config(method="at+wa", ema_decay=0.98))
    slower = digits_config(method="at+wa", ema_decay=0.99)
    records: list[Record] = []
    for seed, config in enumerate((*configs, slower)):
        own = {"method": config.method, "seed": seed, "training_sha256": config.sha256()}
        weights = ("student", "average") if config.parsed_method().has_average else ("student",)
        records += [attack_record(8_000, 4_700, **own, weights=name) for name in weights]
        records.append(train_record(method=config.method, seed=seed, config=config.to_json()))
    found = [(row["method"], row["marks"]) for row in accuracy_rows(records)]
    assert sorted(found) == [
        *(3 * [("at", ())]),
        ("at+wa", ("settings: --ema-decay 0.98",)),
        ("at+wa", ("settings: --ema-decay 0.99",)),
    ]


def test_student_and_average_of_one_run_are_said_to_be() -> None:
    records = [
        attack_record(8_000, 4_700, method="adr", weights=weights)
        for weights in ("student", "average")
    ]
    assert SHARED_NOTE in table(build_report(records), "robust accuracy").notes
    assert SHARED_NOTE not in table(build_report(records[:1]), "robust accuracy").notes


def test_without_training_records_marks_say_where_settings_stand() -> None:
    report = build_report(two_settings(trained=False, runs=SAME_NAME), baselines=False)
    marks = [row.marks for row in table(report, "robust accuracy").rows]
    assert marks == 2 * [("settings of cifar10-resnet18-at-seed0, in its config.json",)]
    report = build_report(two_settings(trained=False, runs=OTHER_NAME), baselines=False)
    rows = table(report, "robust accuracy").rows
    assert [(row.cells["method"], row.marks) for row in rows] == [("at", ()), ("at (long)", ())]


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        ("cifar10-resnet18-at-seed0", "at"),
        ("cifar10-resnet18-long-at-seed0", "at (resnet18-long)"),
        ("cifar10-long-at-seed0", "at (long)"),
        ("long-seed0", "at (long)"),
        ("long_seed0", "at (long)"),
        ("at-seed0", "at"),
        ("float", "at (float)"),
    ],
)
def test_a_run_named_by_hand_shows_what_its_name_adds(run: str, shown: str) -> None:
    (row,) = accuracy_rows([attack_record(8_000, 4_700, run=run)])
    assert row["method"] == shown


def test_the_activation_in_a_name_is_shown_once() -> None:
    name = "cifar10-resnet18-silu-at-seed0"
    (row,) = accuracy_rows([attack_record(8_000, 4_700, run=name, activation="silu")])
    assert (row["arch"], row["method"]) == ("resnet18 (silu)", "at")


DIFFERENT: list[dict[str, Any]] = [
    {"arch": "wrn-34-10"},
    {"activation": "silu"},
    {"method": "trades"},
    {"method": "adr"},
    {"selected_on": "test"},
    {"n": 9_000},
    {"num_test": 20_000},
    {"published_test_set": False},
    {"data_sha256": "e" * 64},
    {"precision": "bfloat16"},
    {"training_sha256": "f" * 64},
    {"run": "lower-lr-seed1"},
    {"dataset": "cifar100"},
    {"threat_model": Threat(norm="Linf", eps=0.031)},
    {"threat_model": Threat(norm="L2", eps=8 / 255)},
]


@pytest.mark.parametrize("change", DIFFERENT, ids="-".join)
def test_what_differs_is_never_averaged(change: dict[str, Any]) -> None:
    records = [attack_record(8_000, 4_700, seed=0), attack_record(8_000, 4_800, seed=1, **change)]
    tables = [t for t in build_report(records).tables if t.name == "robust accuracy"]
    assert sum(len(table.rows) for table in tables) == 2


def test_a_run_named_by_hand_keeps_its_name() -> None:
    records = [
        attack_record(8_000, 4_700 + s, seed=s, method="adr", run=f"lower-lr-seed{s}")
        for s in (0, 1)
    ]
    assert [row["method"] for row in accuracy_rows(records)] == ["adr (lower-lr)"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_of_two_records_of_one_seed_the_newer_stays_and_a_note_says_so(newest_first: bool) -> None:
    """An `adr` run's average and an `adr+wa` run's are the same row."""
    records: list[Record] = [
        attack_record(8_000, 4_900, method="adr", weights="average", created="2026-01-01T00:00:00"),
        attack_record(
            8_000, 4_950, method="adr+wa", weights="average", created="2026-01-02T00:00:00"
        ),
    ]
    found = table(build_report(records[::-1] if newest_first else records), "robust accuracy")
    assert len(found.rows) == 1
    assert figure(found.rows[0].cells["robust autoattack"]).correct == (4_950,)
    assert (
        "adr+wa, best: 1 older record of the same seed and suite left out "
        "(from cifar10-resnet18-adr-seed0)." in found.notes
    )


def test_foreign_weights_are_rows_of_their_own() -> None:
    records = [
        foreign_record(9_000, 10, "mine", weights_sha256="a" * 64),
        foreign_record(9_000, 20, "mine", weights_sha256="b" * 64),
    ]
    assert [row["method"] for row in accuracy_rows(records)] == ["mine", "mine"]


def test_last_epochs_show_only_without_a_best() -> None:
    best = attack_record(8_000, 4_700)
    last = attack_record(8_400, 4_000, selection="last", epoch=200)
    other = attack_record(8_400, 4_100, selection="last", epoch=200, method="trades")
    shown = [(row["method"], row["checkpoint"]) for row in accuracy_rows([last, other, best])]
    assert shown == [("at", "best"), ("trades", "last")]


def test_suites_are_columns_in_order_and_a_hole_is_none() -> None:
    suites = ("autoattack", "cw", "pgd-100", "pgd-20", "fgsm")
    records = [attack_record(8_000, 5_000, suite=suite) for suite in suites]
    records.append(attack_record(8_000, 5_000, suite="fgsm", method="trades"))
    found = table(build_report(records), "robust accuracy")
    labels = [column.label for column in found.columns if column.suite]
    assert labels == ["fgsm", "pgd-20", "pgd-100", "cw", "autoattack"]
    assert found.rows[1].cells["robust autoattack"] is None


def test_other_parameters_are_another_column() -> None:
    records = [
        attack_record(8_000, 5_000, suite="pgd-20", parameters={"restarts": r, "alpha": 2 / 255})
        for r in (1, 5)
    ]
    found = table(build_report(records), "robust accuracy")
    labels = [column.label for column in found.columns if column.suite]
    assert labels == ["pgd-20 restarts=1", "pgd-20 restarts=5"]
    assert len(found.rows) == 1


def test_tables_are_in_order_of_radius() -> None:
    """As text, "16/255" would come before "8/255"."""
    threats = [Threat(norm="Linf", eps=eps) for eps in (16 / 255, 0.5, 8 / 255)]
    records = [attack_record(8_000, 4_700, threat_model=threat) for threat in threats]
    tables = build_report(records, baselines=False).tables
    titles = [table.title for table in tables if table.name == "robust accuracy"]
    assert [title.split()[-1] for title in titles] == ["8/255", "16/255", "0.5"]


# Marks


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({"published_test_set": False}, "own test set: not comparable with published figures"),
        ({"n": 9_000}, "first 9000 of 10000 test images"),
        ({"selected_on": "test"}, "best epoch chosen on the test split: optimistic"),
        ({"split": "val"}, "measured on the val split"),
        ({"precision": "bfloat16"}, "evaluated in bfloat16, not float32"),
        ({"warnings": ("odd", "odd")}, "warning from autoattack (seed 0): odd"),
    ],
)
def test_what_a_reader_must_know_is_marked_in_both_tables(
    change: dict[str, Any], mark: str
) -> None:
    best = attack_record(8_000, 4_700, **change)
    last = attack_record(8_000, 4_000, selection="last", epoch=200, **change)
    report = build_report([best, last])
    assert table(report, "robust accuracy").rows[0].marks == (mark,)
    assert mark in table(report, "robust overfitting").rows[0].marks
    for format_name in FORMATS:
        assert mark in render(report, format_name, width=200), format_name


def test_rows_on_other_data_of_one_size_are_told_apart() -> None:
    records = [attack_record(8_000, 4_700, data_sha256=letter * 64) for letter in "ab"]
    marks = [row["marks"] for row in accuracy_rows(records)]
    assert marks == [(f"on data with sha256 {letter * 12}",) for letter in "ab"]


def test_a_plain_row_has_no_mark() -> None:
    assert accuracy_rows([attack_record(8_000, 4_700)])[0]["marks"] == ()


def test_a_suite_on_fewer_seeds_is_marked() -> None:
    records = [attack_record(8_000, 4_700, suite="pgd-20", seed=seed) for seed in (0, 1)]
    records.append(attack_record(8_000, 4_500, seed=1))
    row = accuracy_rows(records)[0]
    assert row["marks"] == ("autoattack on 1 of 2 seeds",)
    assert figure(row["robust autoattack"]).seeds == (1,)


def test_clean_counts_that_disagree_are_marked_and_the_newest_is_shown() -> None:
    old = attack_record(8_001, 4_700, suite="pgd-20", created="2026-01-01T00:00:00")
    new = attack_record(8_002, 4_700, created="2026-01-02T00:00:00")
    row = accuracy_rows([new, old])[0]
    assert figure(row["clean"]).correct == (8_002,)
    assert row["marks"] == ("clean count differs between suites (seed 0): newest shown",)


# Overfitting


def test_overfitting_by_hand() -> None:
    """Best 50 and 48, last 40 and 44 percent: gaps 10 and 4 points, mean 7."""
    records = [
        attack_record(8_000, count, seed=seed, selection=selection, epoch=epoch)
        for selection, epoch, counts in (
            ("best", 100, (5_000, 4_800)),
            ("last", 200, (4_000, 4_400)),
        )
        for seed, count in enumerate(counts)
    ]
    records.append(attack_record(8_000, 9_000 - 1_000, seed=2))  # no last: not in the pairs
    (row,) = table(build_report(records), "robust overfitting").rows
    assert (row.cells["seeds"], row.cells["chosen_on"], row.cells["suite"]) == (
        2,
        "val",
        "autoattack",
    )
    assert figure(row.cells["best"]).mean == 49.0
    assert figure(row.cells["last"]).mean == 42.0
    assert figure(row.cells["gap"]).mean == 7.0
    assert figure(row.cells["gap"]).std == pytest.approx(6 / math.sqrt(2), abs=1e-6)


def test_a_suite_without_its_pair_is_a_dash() -> None:
    records = [
        attack_record(8_000, 4_700, suite="pgd-20"),
        attack_record(8_000, 4_000, suite="pgd-20", selection="last", epoch=200),
        attack_record(8_000, 4_500),
    ]
    report = build_report(records, baselines=False)
    rows = {row.cells["suite"]: row for row in table(report, "robust overfitting").rows}
    assert (rows["autoattack"].cells["last"], rows["autoattack"].cells["gap"]) == (None, None)
    assert "| autoattack | 45.00 | - | - |" in render(report, "markdown")


def test_no_overfitting_table_without_pairs() -> None:
    records = [
        attack_record(8_000, 4_700),
        attack_record(8_000, 4_000, method="adr", selection="last"),
    ]
    assert "robust overfitting" not in [table.name for table in build_report(records).tables]
