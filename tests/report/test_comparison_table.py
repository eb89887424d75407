"""Methods beside their controls: what is compared, and what the table says about it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrbench.config.settings import TrainConfig, train_settings
from adrbench.data.builtin import DATASETS
from adrbench.data.loading import load_split
from adrbench.errors import UsageError
from adrbench.report import FORMATS, build_report, render
from adrbench.report.cell_text import grid
from adrbench.report.comparison_table import (
    DETECTABLE_NOTE,
    IMAGES_NOTE,
    P_NOTE,
    SEEDS_NOTE,
    WITHOUT_P_FOOTNOTE,
)
from adrbench.report.datasets import TEST_SIZES
from adrbench.report.footnotes import INTERVALS_NOTE
from adrbench.report.p_values import correct
from adrbench.report.pairs import (
    SPLIT_FOOTNOTE,
    TWO_SEEDS_FOOTNOTE,
    UNKNOWN_FOOTNOTE,
    UNKNOWN_SPLIT_FOOTNOTE,
)
from adrbench.report.statistics import PValue
from adrbench.report.two_way_interval import estimate_difference
from adrbench.results.records import AttackRecord, Outcomes, Record, TrainRecord, pack_outcomes
from report_records import attack_record, digits_config, figure, foreign_record, table, train_record

AT, ADR = "at", "adr"
ADR_SETTINGS = {
    "temperature_high": 1.0,
    "temperature_low": 0.7,
    "interpolation_low": 0.3,
    "interpolation_high": 0.9,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "at": {},
    "at+wa": {"ema_decay": 0.98},
    "at+awp": {"awp_rho": 0.005, "nesterov": False},
    "adr": {**ADR_SETTINGS, "ema_decay": 0.98},
    "adr+wa": {**ADR_SETTINGS, "ema_decay": 0.98},
    "adr+awp": {**ADR_SETTINGS, "ema_decay": 0.98, "awp_rho": 0.005, "nesterov": False},
    "trades": {"beta": 6.0},
    "trades+adr+wa": {**ADR_SETTINGS, "ema_decay": 0.98, "beta": 6.0},
}
#: Outcomes of four seeds on six images, for two methods.
MINE = ([1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 0])
THEIRS = ([1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0])


def evaluated(robust: Sequence[int], **changes: Any) -> AttackRecord:
    """Return an evaluation with the given outcome per image: 1 is robust, 0 is not."""
    n = len(robust)
    bits = np.array(robust, dtype=np.bool_)
    record = attack_record(n, int(bits.sum()), n=n, num_test=n, **changes)
    clean = pack_outcomes(np.ones(n, dtype=np.bool_))
    return replace(record, verdicts=Outcomes(clean=clean, robust=pack_outcomes(bits)))


def trained(
    method: str,
    robust: Sequence[Sequence[int]] = MINE,
    source: str = "digits",
    **changes: Any,
) -> list[Record]:
    """Return the training and the evaluation of each seed of `method` on the data set `source`.

    A changed setting is changed in the configuration, anything else in the evaluations.
    """
    own = {name: changes.pop(name) for name in list(changes) if name in train_settings()}
    config = digits_config(**{"method": method, "dataset": source, **SETTINGS[method], **own})
    weights = "average" if "wa" in method.split("+") else "student"
    records: list[Record] = []
    for seed, bits in enumerate(robust):
        held = replace(config, seed=seed)
        named = {"method": method, "seed": seed, "run": f"cifar10-resnet18-{method}-seed{seed}"}
        settings = {"training_sha256": config.sha256(), "weights": weights}
        records.append(evaluated(bits, **named, **settings, **changes))
        size = {"num_train": 1_294, "num_val": held.val_size}
        records.append(train_record(**named, config=held.to_json(), **size))
    return records


def paired_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    tables = [t for t in build_report(records, baselines=False).tables if t.name == "paired"]
    return [{**row.cells, "marks": row.footnotes} for t in tables for row in t.rows]


def pairs(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(row["method"], row["against"]) for row in paired_rows(records)]


# The numbers


def test_several_seeds_have_the_interval_p_and_detectable_difference_of_the_design() -> None:
    """Counts 4, 4, 3 and 5 of 6 for adr; 2, 2, 2 and 2 for at."""
    records = [evaluated(bits, method=ADR, seed=s) for s, bits in enumerate(MINE)]
    records += [evaluated(bits, method=AT, seed=s) for s, bits in enumerate(THEIRS)]
    (row,) = paired_rows(records)
    estimate = estimate_difference(np.array(MINE) - np.array(THEIRS))
    assert estimate.interval
    assert estimate.p
    assert estimate.detectable
    difference = figure(row["difference"])
    assert (row["method"], row["against"], row["seeds"], row["n"]) == (ADR, AT, 4, 6)
    assert (figure(row["robust"]).mean, figure(row["reference"]).mean) == pytest.approx(
        (100 * 16 / 24, 100 * 8 / 24)
    )
    assert difference.mean == pytest.approx(100 * 8 / 24)
    assert difference.seeds == (0, 1, 2, 3)
    assert difference.interval == pytest.approx([100 * bound for bound in estimate.interval])
    assert row["p"] == PValue(p=estimate.p, uncorrected=estimate.p, comparisons=1)
    assert row["detectable"] == pytest.approx(100 * estimate.detectable)
    assert table(build_report(records), "paired").notes[:3] == (SEEDS_NOTE, P_NOTE, DETECTABLE_NOTE)


def test_one_seed_has_an_interval_over_images_that_is_named_as_such_and_no_p() -> None:
    records = [evaluated(MINE[0], method=ADR), evaluated(THEIRS[0], method=AT)]
    (row,) = paired_rows(records)
    estimate = estimate_difference(np.array([MINE[0]]) - np.array([THEIRS[0]]))
    assert estimate.interval
    interval = figure(row["difference"]).interval
    assert interval == pytest.approx([100 * bound for bound in estimate.interval])
    assert (row["p"], row["detectable"], row["seeds"]) == (None, None, 1)
    assert WITHOUT_P_FOOTNOTE in row["marks"]
    notes = table(build_report(records), "paired").notes
    assert IMAGES_NOTE in notes
    assert not {SEEDS_NOTE, P_NOTE, DETECTABLE_NOTE} & set(notes)


def test_two_seeds_have_a_warning() -> None:
    records = [evaluated(bits, method=ADR, seed=s) for s, bits in enumerate(MINE)]
    records += [evaluated(bits, method=AT, seed=s) for s, bits in enumerate(THEIRS)]
    for seeds in (2, 3):
        (row,) = paired_rows([record for record in records if record.seed in range(seeds)])
        assert row["seeds"] == seeds
        assert (TWO_SEEDS_FOOTNOTE in row["marks"]) == (seeds == 2)


def test_a_single_image_or_equal_outcomes_have_no_interval() -> None:
    for bits in ([1], [1, 0, 1]):
        (row,) = paired_rows([evaluated(bits, method=ADR), evaluated(bits, method=AT)])
        assert figure(row["difference"]).mean == 0
        assert figure(row["difference"]).interval is None


def test_only_seeds_that_both_have_are_compared() -> None:
    records = [evaluated([0, 0, 0, 1], method=AT, seed=seed) for seed in (0, 1)]
    records += [evaluated([1, 1, 0, 1], method=ADR, seed=seed) for seed in (1, 2)]
    (row,) = paired_rows(records)
    assert (row["seeds"], figure(row["difference"]).seeds) == (1, (1,))
    assert paired_rows([*records[:1], *records[3:]]) == []


def test_a_seed_with_damaged_outcomes_is_left_out() -> None:
    records = [evaluated([0, 0, 1, 0], method=AT, seed=seed) for seed in (0, 1)]
    records += [evaluated([1, 1, 0, 1], method=ADR, seed=seed) for seed in (0, 1)]
    damaged = replace(records[3], verdicts=Outcomes(clean="", robust="?"))
    (row,) = paired_rows([*records[:3], damaged])
    assert (row["seeds"], figure(row["difference"]).seeds) == (1, (0,))


@pytest.mark.parametrize("format_name", FORMATS)
def test_formats_show_the_interval_and_never_a_p_of_zero(format_name: str) -> None:
    """Each of 4 seeds is ahead on 99 of 100 images: t = 99 with 99 degrees of freedom."""
    bits = [1] * 99 + [0]
    records = [evaluated(bits, method=ADR, seed=seed) for seed in range(4)]
    records += [evaluated([0] * 100, method=AT, seed=seed) for seed in range(4)]
    report = build_report(records, baselines=False)
    (row,) = table(report, "paired").rows
    p, interval = row.cells["p"], figure(row.cells["difference"]).interval
    assert isinstance(p, PValue)
    assert interval
    assert 0 < p.p < 1e-90
    shown = render(report, format_name, width=200).replace("\\<", "<")
    text = f"+99.0 [{interval[0]:+.1f}, {interval[1]:+.1f}]"
    expected = {"csv": (repr(p.p),), "json": (repr(p.p),), "latex": (r"\textless{}0.001 (1)", text)}
    for part in expected.get(format_name, ("<0.001 (1)", text)):
        assert part in shown


def test_order_of_records_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    records = [
        evaluated(rng.integers(0, 2, 40).tolist(), method=method, seed=seed, selection=selection)
        for method in (AT, ADR, "trades")
        for seed in range(3)
        for selection in ("best", "last")
    ]
    rows = paired_rows(records)
    assert [(row["method"], row["checkpoint"]) for row in rows] == [
        *((ADR, "best"), ("trades", "best"), (ADR, "last"), ("trades", "last"))
    ]
    assert paired_rows(records[::-1]) == rows


# Families


def test_p_is_corrected_over_each_arm_with_its_control_under_one_suite_at_one_epoch() -> None:
    """`adr+wa` is compared with `at` too, outside the family; PGD and last epochs are others."""
    rng = np.random.default_rng(1)
    records: list[Record] = []
    for suite, selection in (("autoattack", "best"), ("autoattack", "last"), ("pgd-20", "last")):
        for method in ("at", "at+wa", "adr", "adr+wa"):
            bits = rng.integers(0, 2, (3, 60)).tolist()
            records += trained(method, bits, suite=suite, selection=selection)
    rows = paired_rows(records)
    assert len(rows) == 3 * 4
    for suite, selection in (("autoattack", "best"), ("autoattack", "last"), ("pgd-20", "last")):
        own = [row for row in rows if (row["suite"], row["checkpoint"]) == (suite, selection)]
        family = [row["p"] for row in own if row["p"]]
        assert [(row["method"], row["against"], row["p"] is not None) for row in own] == [
            ("at+wa", "at", True),
            ("adr", "at", True),
            ("adr+wa", "at+wa", True),
            ("adr+wa", "at", False),
        ]
        assert [p.comparisons for p in family] == [3, 3, 3]
        assert [p.p for p in family] == correct([p.uncorrected for p in family])


def test_comparisons_whose_outcomes_do_not_vary_stay_in_the_family() -> None:
    """`at+awp` equals `at` on every image (p = 1), `trades` is ahead on every one (no p)."""
    zeros, ones = [[0] * 6] * 4, [[1] * 6] * 4
    outcomes = {"at": zeros, "at+awp": zeros, "adr": THEIRS, "trades": ones}
    records = [
        evaluated(bits, method=method, seed=seed)
        for method, rows in outcomes.items()
        for seed, bits in enumerate(rows)
    ]
    p_values = {row["method"]: row["p"] for row in paired_rows(records)}
    own = estimate_difference(np.array(THEIRS)).p
    assert own is not None
    assert p_values == {
        "at+awp": PValue(p=1.0, uncorrected=1.0, comparisons=3),
        "adr": PValue(p=3 * own, uncorrected=own, comparisons=3),
        "trades": None,
    }


# What is compared


def test_every_arm_is_compared_with_its_control_and_with_at() -> None:
    methods = ("at", "at+wa", "at+awp", "adr", "adr+wa", "adr+awp", "trades")
    found = pairs([record for method in methods for record in trained(method)])
    assert found == [
        ("at+wa", "at"),
        ("at+awp", "at"),
        ("adr", "at"),
        ("adr+wa", "at+wa"),
        ("adr+wa", "at"),
        ("adr+awp", "at+awp"),
        ("adr+awp", "at"),
        ("trades", "at"),
    ]


def test_without_its_control_an_arm_is_compared_with_the_nearest_and_the_row_says_so() -> None:
    records = [*trained("at", THEIRS), *trained("trades"), *trained("trades+adr+wa", MINE[::-1])]
    rows = [row for row in paired_rows(records) if row["method"] == "trades+adr+wa"]
    assert [(row["against"], row["p"] is not None) for row in rows] == [
        ("trades", True),
        ("at", False),
    ]
    missing = "no trades+wa to compare with: trades also lacks wa"
    assert [missing in row["marks"] for row in rows] == [True, False]
    only_at = paired_rows([*trained("at", THEIRS), *trained("trades+adr+wa")])
    assert [(row["against"], row["p"] is not None) for row in only_at] == [("at", True)]
    assert "no trades+wa to compare with: at also lacks wa and trades" in only_at[0]["marks"]


def test_a_control_shares_the_settings_of_its_components() -> None:
    """Averages of other decays are not compared; the plain objective has none."""
    others = [*trained("at"), *trained("at+wa", ema_decay=0.9), *trained("adr+wa")]
    assert [pair for pair in pairs(others) if pair[0] == "adr+wa"] == [("adr+wa", "at")]
    alike = [*trained("at"), *trained("at+wa"), *trained("adr+wa")]
    assert ("adr+wa", "at+wa") in pairs(alike)
    trades = [*trained("trades", beta=1.0), *trained("trades+adr+wa")]
    assert pairs(trades) == []


@pytest.mark.parametrize(
    ("at", "awp", "found"),
    [(True, False, True), (False, False, True), (True, True, True), (False, True, False)],
)
def test_awp_may_lack_nesterov_momentum_and_the_row_says_so(
    at: bool, awp: bool, found: bool
) -> None:
    records = [*trained("at", nesterov=at), *trained("at+awp", nesterov=awp)]
    rows = paired_rows(records)
    assert len(rows) == found
    implied = "awp implies training without --nesterov; at was trained with --nesterov"
    for row in rows:
        assert (implied in row["marks"]) == (at != awp)


def test_two_methods_with_awp_share_their_nesterov_momentum() -> None:
    records = [*trained("at+awp", nesterov=True), *trained("adr+awp")]
    assert pairs(records) == []


DIFFERENT: list[dict[str, Any]] = [
    {"arch": "wrn-34-10"},
    {"data_sha256": "e" * 64},
    {"selection": "last"},
    {"selected_on": "test"},
    {"suite": "pgd-20"},
    {"parameters": {"version": "plus"}},
    {"seed": 1},
    {"precision": "bfloat16"},
    {"run": "cifar10-long-adr-seed0", "label": "long"},
    {"training_images_sha256": "f" * 64},
    {"verdicts": Outcomes(clean="", robust="")},
]


@pytest.mark.parametrize("change", DIFFERENT, ids="-".join)
def test_what_differs_in_more_than_the_method_is_not_compared(change: dict[str, Any]) -> None:
    at, adr = evaluated([0, 0, 1, 0], method=AT), evaluated([1, 1, 0, 1], method=ADR)
    assert len(paired_rows([at, adr])) == 1
    assert paired_rows([at, replace(adr, **change)]) == []


def test_without_training_records_a_footnote_warns_of_other_settings() -> None:
    records = [evaluated([0, 0, 1, 0], method=AT), evaluated([1, 1, 0, 1], method=ADR)]
    (row,) = paired_rows(records)
    assert UNKNOWN_FOOTNOTE in row["marks"]
    config = digits_config()
    known = train_record(config=config.to_json(), dataset="cifar10")
    assert (
        paired_rows([replace(records[0], training_sha256=config.sha256()), records[1], known]) == []
    )


def test_rows_have_the_footnotes_of_both_sides() -> None:
    shared = {"selected_on": "test"}
    at = evaluated([0, 0, 1, 0], method=AT, warnings=("masked",), **shared)
    adr = evaluated([1, 1, 0, 1], method=ADR, **shared)
    (row,) = paired_rows([at, adr])
    assert row["chosen_on"] == "test"
    assert row["marks"] == (
        "best epoch chosen on the test split: optimistic",
        "warning from autoattack (seed 0): masked",
        WITHOUT_P_FOOTNOTE,
        UNKNOWN_FOOTNOTE,
    )


def test_each_attack_has_the_reference_that_was_attacked_by_it() -> None:
    """One `at` was attacked by PGD, the student of a run with EMA weights by AutoAttack."""
    bits = [1, 0, 1, 0]
    averaged = {"method": "at+wa", "training_sha256": "f" * 64}
    records = [
        evaluated(bits, method=AT, suite="pgd-20"),
        evaluated(bits, **averaged, suite="autoattack"),
        evaluated(bits, method="trades", suite="pgd-20"),
        evaluated(bits, method="trades", suite="autoattack"),
    ]
    assert [row["suite"] for row in paired_rows(records)] == ["pgd-20", "autoattack"]


def test_of_several_references_the_one_with_most_common_seeds_is_taken() -> None:
    other = {"training_sha256": "f" * 64}
    records = [evaluated([1, 0, 1], method=AT, seed=0)]
    records += [evaluated([0, 0, 1], method="at+wa", seed=seed, **other) for seed in range(3)]
    records += [evaluated([1, 1, 1], method=ADR, seed=seed) for seed in range(3)]
    (row,) = paired_rows(records)
    assert (row["against"], row["seeds"]) == (AT, 3)


def test_the_reference_has_as_many_epochs() -> None:
    """Rows with a label are compared with the reference of the same settings."""
    records = [*trained("at", THEIRS), *trained("adr")]
    for method, bits in (("at", MINE), ("adr", THEIRS)):
        records += [
            replace(record, run=f"cifar10-long-{method}-seed{record.seed}", label="long")
            for record in trained(method, bits, epochs=60)
        ]
    found = {(row["method"], row["against"]): row["marks"][-1] for row in paired_rows(records)}
    assert found == {
        ("adr", "at"): "settings: --epochs 30",
        ("adr (long)", "at (long)"): "settings: --epochs 60",
    }


def test_third_party_weights_are_not_compared() -> None:
    foreign = foreign_record(4, 3, "mine", n=4, num_test=4)
    assert paired_rows([evaluated([0, 0, 1, 0], method=AT), foreign]) == []


# Notes on the design


def test_intervals_are_explained() -> None:
    records = [evaluated([0, 0, 1, 0], method=AT), evaluated([1, 1, 0, 1], method=ADR)]
    notes = table(build_report(records, intervals=True), "paired").notes
    assert INTERVALS_NOTE in notes


@pytest.mark.parametrize(
    ("source", "num_val", "footnote"),
    [
        ("digits", 143, SPLIT_FOOTNOTE),
        ("cifar10", 1_000, SPLIT_FOOTNOTE),
        ("my/images.npz", 500, UNKNOWN_SPLIT_FOOTNOTE),
        ("digits", 0, None),
    ],
)
def test_rows_say_where_a_seed_changes_the_training_images(
    source: str, num_val: int, footnote: str | None
) -> None:
    changes: dict[str, Any] = {"val_size": num_val, "select": "val" if num_val else "test"}
    records = [*trained("at", THEIRS, source, **changes), *trained("adr", MINE, source, **changes)]
    (row,) = paired_rows(records)
    shown = {SPLIT_FOOTNOTE, UNKNOWN_SPLIT_FOOTNOTE} & set(row["marks"])
    assert shown == ({footnote} if footnote else set())


def test_a_row_of_one_seed_says_nothing_of_variation_over_seeds() -> None:
    records = [*trained("at", THEIRS), *trained("adr"), *trained("at+awp", MINE[:1])]
    marks = {row["method"]: row["marks"] for row in paired_rows(records)}
    assert SPLIT_FOOTNOTE in marks["adr"]
    assert SPLIT_FOOTNOTE not in marks["at+awp"]
    assert WITHOUT_P_FOOTNOTE in marks["at+awp"]


def test_the_footnote_on_splits_is_not_numbered_where_all_rows_of_several_seeds_have_it() -> None:
    everywhere = [*trained("at", THEIRS), *trained("adr"), *trained("trades", MINE[:1])]
    fixed: dict[str, Any] = {"val_size": 0, "select": "test"}
    apart = trained("at+wa", **fixed) + trained("adr+wa", **fixed)
    for records, is_numbered in ((everywhere, False), ([*everywhere, *apart], True)):
        found = table(build_report(records, baselines=False), "paired")
        notes = grid(found, intervals=False).notes
        assert sum(SPLIT_FOOTNOTE in note for note in notes) == 1
        assert (SPLIT_FOOTNOTE in notes) != is_numbered


def test_notes_are_no_longer_than_a_line_of_80_columns() -> None:
    records = [*trained("at", THEIRS), *trained("adr"), *trained("trades", MINE[:1])]
    records += [replace(one, selection="last") for one in records if isinstance(one, AttackRecord)]
    notes = table(build_report(records, baselines=False), "paired").notes
    assert len(notes) == 4
    assert max(map(len, notes)) <= 80


def test_a_split_of_its_own_seed_does_not_change_the_training_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = TrainConfig.values
    monkeypatch.setattr(TrainConfig, "values", lambda self: {**values(self), "split_seed": 0})
    (row,) = paired_rows([*trained("at", THEIRS), *trained("adr")])
    assert SPLIT_FOOTNOTE not in row["marks"]


def test_the_built_in_data_sets_have_the_sizes_of_their_test_sets() -> None:
    sizes = {name: source.num_test or TEST_SIZES[name] for name, source in DATASETS.items()}
    assert sizes == TEST_SIZES
    assert len(load_split("digits", "test", data_dir=Path("data"))[0]) == TEST_SIZES["digits"]


@pytest.mark.parametrize(
    ("num_val", "order", "note"),
    [
        (143, ["last", "best"], "last epoch first: the best was chosen on 143 images (standard "
         "error 4.2 points)."),
        (1_000, ["best", "last"], None),
    ],
)  # fmt: skip
def test_the_last_epoch_is_first_where_the_best_was_chosen_on_few_images(
    num_val: int, order: list[str], note: str | None
) -> None:
    """50 / sqrt(143) = 4.18."""
    records = [
        record
        for method in ("at", "adr")
        for selection in ("best", "last")
        for record in trained(method, val_size=num_val, selection=selection)
    ]
    assert [row["checkpoint"] for row in paired_rows(records)] == order
    notes = table(build_report(records), "paired").notes
    assert [one for one in notes if one.startswith("last epoch first")] == ([note] if note else [])


def test_a_validation_split_is_that_of_the_training_images_not_of_the_test_set() -> None:
    """Both were trained with the same settings, on other images that CIFAR-10's test set judges."""
    records: list[Record] = []
    for source, images, num_val in (("cifar10", "a", 5_000), ("own.npz", "b", 143)):
        for method, outcomes in (("at", THEIRS), ("adr", MINE)):
            for one in trained(method, outcomes, source, val_size=5_000, arch=f"net-{images}"):
                own: dict[str, Any] = {"training_images_sha256": 64 * images}
                if isinstance(one, TrainRecord):
                    own |= {"dataset": source, "num_val": num_val}
                records.append(replace(one, label="", **own))
    found = table(build_report(records, baselines=False), "paired")
    marks = {row.cells["arch"]: set(row.footnotes) for row in found.rows}
    assert SPLIT_FOOTNOTE in marks["net-a"]
    assert UNKNOWN_SPLIT_FOOTNOTE not in marks["net-a"]
    assert UNKNOWN_SPLIT_FOOTNOTE in marks["net-b"]


def test_an_epoch_chosen_on_few_test_images_counts_too() -> None:
    records = [
        evaluated(bits, method=method, selection=selection, selected_on="test")
        for method, bits in ((AT, [0, 1, 0]), (ADR, [1, 1, 0]))
        for selection in ("best", "last")
    ]
    assert [row["checkpoint"] for row in paired_rows(records)] == ["last", "best"]


def test_the_numbers_of_footnotes_are_in_order() -> None:
    records = [evaluated([0, 0, 1], method=AT), evaluated([1, 1, 0], method=ADR)]
    records += [evaluated([1, 1, 0], method="trades", warnings=("masked",))]
    shown = grid(table(build_report(records, baselines=False), "paired"), intervals=False)
    assert [row[1] for row in shown.cells] == ["adr", "trades [1]"]


# Against a method that the user chose


def against(records: Sequence[Record], method: str) -> list[dict[str, Any]]:
    report = build_report(records, baselines=False, against=method)
    tables = [one for one in report.tables if one.name == "paired"]
    return [{**row.cells, "marks": row.footnotes} for one in tables for row in one.rows]


def test_every_method_is_compared_with_the_one_that_is_chosen() -> None:
    records = [
        record
        for method in ("at", "at+wa", "trades", "adr", "adr+wa")
        for record in trained(method)
    ]
    rows = against(records, "trades")
    assert [(row["method"], row["against"]) for row in rows] == [
        (method, "trades") for method in ("at", "at+wa", "adr", "adr+wa")
    ]
    assert not any("to compare with" in mark for row in rows for mark in row["marks"])


def test_the_family_is_every_displayed_comparison_with_the_chosen_method() -> None:
    """Two comparisons are corrected for two; a row of one seed is not in the family."""
    records = [*trained("adr"), *trained("at", THEIRS), *trained("at+wa", MINE[::-1])]
    records += trained("trades", MINE[:1])
    rows = against(records, "adr")
    p_values = [row["p"] for row in rows if row["p"] is not None]
    assert [p.comparisons for p in p_values] == [2, 2]
    assert [p.p for p in p_values] == correct([p.uncorrected for p in p_values])
    assert [row["p"] for row in rows if row["method"] == "trades"] == [None]
    found = table(build_report(records, baselines=False, against="adr"), "paired")
    assert "p (m): Holm-corrected over m comparisons with adr, per suite and epoch." in found.notes


def test_the_difference_is_the_reverse_of_that_with_the_roles_exchanged() -> None:
    records = [*trained("adr"), *trained("at", THEIRS)]
    (one,), (other,) = against(records, "adr"), against(records, "at")
    assert figure(one["difference"]).mean == -figure(other["difference"]).mean
    assert one["p"] == other["p"]


def test_a_chosen_method_may_be_spelled_in_any_order() -> None:
    records = [*trained("adr+wa"), *trained("at", THEIRS)]
    assert [row["against"] for row in against(records, "wa+adr")] == ["adr+wa"]


def test_settings_that_only_one_of_two_methods_has_do_not_keep_them_apart() -> None:
    records = [*trained("trades"), *trained("adr")]
    assert [row["method"] for row in against(records, "trades")] == ["adr"]
    records = [*trained("trades", lr=0.2), *trained("adr")]
    assert against(records, "trades") == []
    records = [*trained("adr+wa", ema_decay=0.99), *trained("at+wa")]
    assert against(records, "adr+wa") == []


@pytest.mark.parametrize(("chosen", "other"), [("at+awp", "adr"), ("adr", "at+awp")])
def test_a_setting_that_a_component_of_either_implies_has_a_footnote(
    chosen: str, other: str
) -> None:
    (row,) = against([*trained(chosen), *trained(other)], chosen)
    footnote = "awp implies training without --nesterov; adr was trained with --nesterov"
    assert footnote in row["marks"]


def test_third_party_weights_are_compared_by_name_whatever_their_networks() -> None:
    records = [
        replace(
            foreign_record(
                3, sum(bits), name, arch=arch, n=3, num_test=3, weights_sha256=64 * arch
            ),
            verdicts=Outcomes(
                clean=pack_outcomes(np.ones(3, bool)), robust=pack_outcomes(np.array(bits, bool))
            ),
        )
        for name, arch, bits in (("mine", "a", [1, 1, 0]), ("theirs", "b", [0, 1, 0]))
    ]
    (row,) = against(records, "theirs")
    assert (row["method"], row["against"]) == ("mine", "theirs")
    assert figure(row["difference"]).mean == pytest.approx(100 / 3)
    assert row["marks"] == (WITHOUT_P_FOOTNOTE,)
    assert paired_rows(records) == []


def test_a_chosen_method_without_results_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'trade': did you mean trades\?"):
        build_report([*trained("at"), *trained("trades")], against="trade")
