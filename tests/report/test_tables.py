"""Grouping of records into rows, footnotes, and the overfitting table."""

import math
from typing import Any

import pytest

from adrbench.config.threat import ThreatModel
from adrbench.report import (
    FORMATS,
    build_report,
    render,
)
from adrbench.report.footnotes import SHARED_NOTE
from adrbench.report.naming import common_label
from adrbench.results.records import AttackRecord, Record
from report_records import (
    accuracy_rows,
    attack_record,
    digits_config,
    figure,
    foreign_record,
    table,
    train_record,
)


def test_seeds_share_one_row() -> None:
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
def test_rows_of_different_settings_have_a_footnote(table_name: str, runs: tuple[str, str]) -> None:
    report = build_report(two_settings(trained=True, runs=runs), baselines=False)
    marks = [row.footnotes[0] for row in table(report, table_name).rows]
    assert sorted(marks) == [
        "settings: --epochs 30, --lr 0.05, with --nesterov",
        "settings: --epochs 60, --lr 0.2, without --nesterov",
    ]


def test_settings_that_a_row_does_not_use_have_no_footnote() -> None:
    """The student of `at+wa` is `at`, whatever the EMA decay; the EMA weights are not."""
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


def test_a_note_says_that_student_and_ema_weights_may_share_runs() -> None:
    records = [
        attack_record(8_000, 4_700, method="adr", weights=weights)
        for weights in ("student", "average")
    ]
    assert SHARED_NOTE in table(build_report(records), "robust accuracy").notes
    assert SHARED_NOTE not in table(build_report(records[:1]), "robust accuracy").notes


def test_without_training_records_footnotes_name_the_config_files() -> None:
    report = build_report(two_settings(trained=False, runs=SAME_NAME), baselines=False)
    marks = [row.footnotes for row in table(report, "robust accuracy").rows]
    assert marks == 2 * [("settings of cifar10-resnet18-at-seed0, in its config.json",)]
    report = build_report(two_settings(trained=False, runs=OTHER_NAME), baselines=False)
    rows = table(report, "robust accuracy").rows
    assert [(row.cells["method"], row.footnotes) for row in rows] == [("at", ()), ("at (long)", ())]


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
def test_a_row_shows_the_label_of_a_run_that_was_named_by_the_user(run: str, shown: str) -> None:
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
    {"threat_model": ThreatModel(norm="Linf", eps=0.031)},
    {"threat_model": ThreatModel(norm="L2", eps=8 / 255)},
]


@pytest.mark.parametrize("change", DIFFERENT, ids="-".join)
def test_what_differs_is_never_averaged(change: dict[str, Any]) -> None:
    records = [attack_record(8_000, 4_700, seed=0), attack_record(8_000, 4_800, seed=1, **change)]
    tables = [t for t in build_report(records).tables if t.name == "robust accuracy"]
    assert sum(len(table.rows) for table in tables) == 2


def test_seeds_of_one_label_share_one_row() -> None:
    records = [
        attack_record(8_000, 4_700 + s, seed=s, method="adr", run=f"lower-lr-seed{s}")
        for s in (0, 1)
    ]
    assert [row["method"] for row in accuracy_rows(records)] == ["adr (lower-lr)"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_of_two_records_of_the_same_weights_the_newer_counts_and_a_note_says_so(
    newest_first: bool,
) -> None:
    """The EMA weights of an `adr` run and of an `adr+wa` run are one row."""
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


# Runs with known training images: names play no part


def named(run: str, seed: int, **changes: Any) -> AttackRecord:
    """Return an evaluation of a run with known training images and a name given by the user."""
    known = {"training_images_sha256": "a" * 64, "label": run, "run": run, "seed": seed}
    return attack_record(8_000, 4_700 + seed, **(known | changes))


def test_runs_of_the_same_settings_and_images_are_one_row_whatever_their_names() -> None:
    records = [named("lr0.02-s0", 0), named("lr0.02-s1", 1)]
    (row,) = accuracy_rows(records)
    assert (row["method"], row["seeds"], row["marks"]) == ("at (lr0.02)", 2, ())
    default = named("cifar10-resnet18-at-seed2", 2, label="")
    (row,) = accuracy_rows([*records, default])
    assert (row["method"], row["seeds"]) == ("at", 3)


def test_the_same_settings_and_names_on_other_training_images_are_two_rows() -> None:
    records = [named("mine", seed, training_images_sha256=64 * "ab"[seed]) for seed in (0, 1)]
    found = [(row["method"], row["seeds"], row["marks"]) for row in accuracy_rows(records)]
    assert found == [
        ("at (mine)", 1, ("training images with sha256 aaaaaaaaaaaa",)),
        ("at (mine)", 1, ("training images with sha256 bbbbbbbbbbbb",)),
    ]


def test_records_with_and_without_known_training_images_are_two_rows() -> None:
    default = "cifar10-resnet18-at-seed0"
    records = [named(default, 0, label=""), attack_record(8_000, 4_700, seed=1)]
    marks = [row["marks"] for row in accuracy_rows(records)]
    assert sorted(marks) == [(), ("training images not recorded",)]


def test_two_weights_of_one_seed_are_two_rows_that_name_them() -> None:
    """Seed 0 was trained twice, as `one` and as `two`; seed 1 once."""
    records = [
        named("one", 0, weights_sha256="1" * 64, created="2026-01-01T00:00:00"),
        named("two", 0, weights_sha256="2" * 64, created="2026-01-02T00:00:00"),
        named("other", 1, weights_sha256="3" * 64),
    ]
    for order in (records, records[::-1]):
        found = table(build_report(order), "robust accuracy")
        rows = [(row.cells["method"], row.cells["seeds"], row.footnotes) for row in found.rows]
        several = "one of several sets of weights of seed 0"
        assert rows == [
            ("at (one)", 1, (f"{several}: run one, weights 11111111, epoch 104",)),
            ("at (other)", 1, ()),
            ("at (two)", 1, (f"{several}: run two, weights 22222222, epoch 104",)),
        ]
        assert not any("left out" in note for note in found.notes)


def test_a_run_repeated_under_one_name_replaces_nothing() -> None:
    records = [named("mine", 0, weights_sha256=64 * digit) for digit in "12"]
    marks = [row["marks"] for row in accuracy_rows(records)]
    several = "one of several sets of weights of seed 0"
    assert marks == [(f"{several}: run mine, weights {8 * digit}, epoch 104",) for digit in "12"]


def test_a_later_record_of_the_same_weights_replaces_the_earlier_among_several_trainings() -> None:
    records = [
        named("one", 0, weights_sha256="1" * 64),
        named("two", 0, weights_sha256="2" * 64),
        named("one", 0, weights_sha256="1" * 64, robust_correct=1, created="2027-01-01T00:00:00"),
    ]
    found = table(build_report(records), "robust accuracy")
    counts = [figure(row.cells["robust autoattack"]).correct for row in found.rows]
    assert counts == [(1,), (4_700,)]
    assert any(note.startswith("at (one), best: 1 older record") for note in found.notes)


def test_best_and_last_of_each_of_two_trainings_are_compared() -> None:
    """The weights of best and last epoch differ, so they are matched by the names of the runs."""
    records = [
        named(
            run, 0, weights_sha256=64 * digit, selection=selection, robust_correct=5_000 - 100 * k
        )
        for run, weights in (("one", "13"), ("two", "24"))
        for k, (selection, digit) in enumerate(zip(("best", "last"), weights, strict=True))
    ]
    rows = table(build_report(records), "robust overfitting").rows
    assert [row.cells["method"] for row in rows] == ["at (one)", "at (two)"]
    assert [figure(row.cells["gap"]).mean for row in rows] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("labels", "common"),
    [
        (("long", "long"), "long"),
        (("lr0.02-s0", "lr0.02-s1"), "lr0.02"),
        (("lr0.02-long-s0", "lr0.02-long-s10"), "lr0.02-long"),
        (("lr0.02", "lr0.02-s1"), "lr0.02"),
        (("lr0.02-1", "lr0.02-10"), "lr0.02"),
        (("", "long"), ""),
        (("one", "two"), ""),
        (("run1", "run2"), ""),
    ],
)
def test_the_label_of_several_runs_is_what_their_labels_share(
    labels: tuple[str, ...], common: str
) -> None:
    assert common_label(labels) == common_label(labels[::-1]) == common


def test_third_party_weights_have_rows_of_their_own() -> None:
    records = [
        foreign_record(9_000, 10, "mine", weights_sha256="a" * 64),
        foreign_record(9_000, 20, "mine", weights_sha256="b" * 64),
    ]
    assert [row["method"] for row in accuracy_rows(records)] == ["mine", "mine"]


def test_last_epochs_are_shown_only_without_a_best() -> None:
    best = attack_record(8_000, 4_700)
    last = attack_record(8_400, 4_000, selection="last", epoch=200)
    other = attack_record(8_400, 4_100, selection="last", epoch=200, method="trades")
    shown = [(row["method"], row["checkpoint"]) for row in accuracy_rows([last, other, best])]
    assert shown == [("at", "best"), ("trades", "last")]


def test_suites_are_columns_in_order_and_none_where_not_measured() -> None:
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
    assert labels == ["pgd-20 (restarts 1)", "pgd-20 (restarts 5)"]
    assert len(found.rows) == 1


def test_tables_are_in_order_of_radius() -> None:
    """As text, "16/255" would come before "8/255"."""
    threats = [ThreatModel(norm="Linf", eps=eps) for eps in (16 / 255, 0.5, 8 / 255)]
    records = [attack_record(8_000, 4_700, threat_model=threat) for threat in threats]
    tables = build_report(records, baselines=False).tables
    titles = [table.title for table in tables if table.name == "robust accuracy"]
    assert [title.split()[-1] for title in titles] == ["8/255", "16/255", "0.5"]


# Footnotes


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
def test_deviations_have_footnotes_in_both_tables(change: dict[str, Any], mark: str) -> None:
    best = attack_record(8_000, 4_700, **change)
    last = attack_record(8_000, 4_000, selection="last", epoch=200, **change)
    report = build_report([best, last])
    assert table(report, "robust accuracy").rows[0].footnotes == (mark,)
    assert mark in table(report, "robust overfitting").rows[0].footnotes
    for format_name in FORMATS:
        assert mark in render(report, format_name, width=200), format_name


def test_rows_on_different_test_data_of_one_size_have_footnotes() -> None:
    records = [attack_record(8_000, 4_700, data_sha256=letter * 64) for letter in "ab"]
    marks = [row["marks"] for row in accuracy_rows(records)]
    assert marks == [(f"on data with sha256 {letter * 12}",) for letter in "ab"]


def test_a_plain_row_has_no_footnote() -> None:
    assert accuracy_rows([attack_record(8_000, 4_700)])[0]["marks"] == ()


def test_a_suite_on_fewer_seeds_has_a_footnote() -> None:
    records = [attack_record(8_000, 4_700, suite="pgd-20", seed=seed) for seed in (0, 1)]
    records.append(attack_record(8_000, 4_500, seed=1))
    row = accuracy_rows(records)[0]
    assert row["marks"] == ("autoattack on 1 of 2 seeds",)
    assert figure(row["robust autoattack"]).seeds == (1,)


def test_clean_counts_that_disagree_have_a_footnote_and_the_newest_is_shown() -> None:
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


def test_the_epoch_of_weights_that_were_not_trained_here_is_a_dash_or_not_shown() -> None:
    mine = foreign_record(8_000, 4_700, "mine")
    alone = render(build_report([mine], baselines=False), "markdown")
    assert "epoch" not in alone.split("Evaluation")[0]
    both = render(build_report([mine, attack_record(8_000, 4_700)], baselines=False), "markdown")
    (row,) = [line for line in both.splitlines() if "| mine |" in line]
    assert row.startswith("| resnet18 | mine | - | 1 |")
    lines = render(build_report([mine], baselines=False), "csv").splitlines()
    assert any(",file," in line for line in lines)


@pytest.mark.parametrize(
    ("dataset", "changes", "footnote"),
    [
        ("digits", {}, "on 50 given images, not the whole test set (360 images)"),
        ("digits", {"num_test": 360}, "first 50 of 360 test images"),
        ("mine", {}, None),
    ],
)
def test_images_that_are_not_a_whole_test_set_have_a_footnote(
    dataset: str, changes: dict[str, Any], footnote: str | None
) -> None:
    """In Python, a caller may give the first images of a data set as if they were all."""
    size = {"n": 50, "num_test": 50, "published_test_set": False} | changes
    (row,) = accuracy_rows([foreign_record(40, 30, "mine", dataset=dataset, **size)])
    others = "own test set: not comparable with published figures"
    assert [mark for mark in row["marks"] if mark != others] == ([footnote] if footnote else [])


def test_a_warning_of_several_suites_is_one_footnote() -> None:
    records = [
        foreign_record(8_000, 4_700, "mine", suite=suite, warnings=("masked",))
        for suite in ("pgd-20", "cw")
    ]
    (row,) = accuracy_rows(records)
    assert row["marks"] == ("warning from pgd-20, cw: masked",)
