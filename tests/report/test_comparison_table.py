"""Methods compared with plain adversarial training, image by image."""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from adrbench.report import FORMATS, build_report, render
from adrbench.report.comparison_table import UNKNOWN_FOOTNOTE
from adrbench.report.footnotes import INTERVALS_NOTE
from adrbench.report.p_values import exact_test
from adrbench.report.statistics import PValue
from adrbench.results.records import AttackRecord, Outcomes, Record, pack_outcomes
from report_records import attack_record, digits_config, figure, foreign_record, table, train_record

AT, ADR = "at", "adr"


def evaluated(robust: Sequence[int], **changes: Any) -> AttackRecord:
    """Return an evaluation with the given outcome per image: 1 is robust, 0 is not."""
    n = len(robust)
    bits = np.array(robust, dtype=np.bool_)
    record = attack_record(n, int(bits.sum()), n=n, num_test=n, **changes)
    clean = pack_outcomes(np.ones(n, dtype=np.bool_))
    return replace(record, verdicts=Outcomes(clean=clean, robust=pack_outcomes(bits)))


def paired_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    tables = [t for t in build_report(records, baselines=False).tables if t.name == "paired"]
    return [{**row.cells, "marks": row.footnotes} for t in tables for row in t.rows]


def margins(won: int, lost: int) -> list[int]:
    return [1] * won + [-1] * lost + [0] * 3


@pytest.mark.parametrize("won", [0, 1, 2, 5, 30, 500])
@pytest.mark.parametrize("lost", [0, 1, 3, 8, 41, 700])
def test_p_of_one_seed_equals_the_binomial_test(won: int, lost: int) -> None:
    expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    assert exact_test(margins(won, lost)) == pytest.approx(expected, rel=1e-9)
    assert exact_test(margins(won, lost)) == exact_test(margins(lost, won))


def test_p_by_hand() -> None:
    """2 (C(6, 0) + C(6, 1)) / 2^6 = 14 / 64; of +-2 +-1 +-1, |S| >= 4 in two of eight."""
    assert exact_test(margins(1, 5)) == 14 / 64
    assert exact_test(margins(0, 0)) == exact_test([]) == exact_test(margins(3, 3)) == 1
    assert exact_test(margins(0, 100_000)) == 0  # smaller than any float
    assert exact_test([2, 1, 1]) == pytest.approx(2 / 8)
    assert exact_test([3, 3, 3]) == exact_test([1, 1, 1]) == 2 / 8


@given(st.lists(st.integers(-4, 4), max_size=12))
def test_p_of_several_seeds_equals_the_enumeration_of_signs(margins: list[int]) -> None:
    sums = [
        abs(sum(sign * margin for sign, margin in zip(signs, margins, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(margins))
    ]
    expected = sum(one >= abs(sum(margins)) for one in sums) / len(sums)
    assert exact_test(margins) == pytest.approx(expected, abs=1e-12)


def test_thousands_of_images_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(-5, 6, 10_000).tolist()
    began = time.process_time()
    p = exact_test(many)
    assert time.process_time() - began < 1
    # By the central limit theorem; the sum goes in steps of 2, so half a step is 1.
    deviation = math.sqrt(sum(margin**2 for margin in many))
    expected = 2 * NormalDist().cdf(-(abs(sum(many)) - 1) / deviation)
    assert p == pytest.approx(expected, abs=1e-3)


def test_one_seed_counts_the_images_on_which_only_one_is_robust() -> None:
    """On 8 images: both are robust on 2, neither on 1, only adr on 4, only at on 1."""
    records = [
        evaluated([1, 1, 0, 0, 0, 0, 0, 1], method=AT),
        evaluated([1, 1, 0, 1, 1, 1, 1, 0], method=ADR),
    ]
    (row,) = paired_rows(records)
    assert (row["method"], row["seeds"], row["suite"], row["n"]) == (ADR, 1, "autoattack", 8)
    assert (row["won"], row["lost"]) == (4, 1)
    assert row["p"] == PValue(p=12 / 32)
    assert figure(row["difference"]).mean == 37.5
    assert figure(row["difference"]).std is None
    assert (figure(row["reference"]).mean, figure(row["robust"]).mean) == (37.5, 75.0)


def test_an_image_counts_once_however_many_seeds_there_are() -> None:
    """Of three seeds, image 0 is won in two and lost in one, image 1 the reverse, image 2 even."""
    at = ([0, 1, 0], [0, 1, 1], [1, 0, 1])
    adr = ([1, 0, 1], [1, 0, 0], [0, 1, 1])
    records = [evaluated(v, method=AT, seed=s) for s, v in enumerate(at)]
    records += [evaluated(v, method=ADR, seed=s) for s, v in enumerate(adr)]
    (row,) = paired_rows(records)
    assert (row["won"], row["lost"], row["seeds"]) == (1, 1, 3)
    difference = figure(row["difference"])
    # counts: 2 - 1, 1 - 2, 2 - 2 of 3 images
    assert difference.mean == pytest.approx(0.0)
    assert difference.std == pytest.approx(100 / 3, abs=1e-5)


def test_only_seeds_that_both_have_are_compared() -> None:
    records = [evaluated([0, 0, 0, 0], method=AT, seed=seed) for seed in (0, 1)]
    records += [evaluated([1, 1, 1, 1], method=ADR, seed=seed) for seed in (1, 2)]
    (row,) = paired_rows(records)
    assert (row["seeds"], figure(row["difference"]).seeds) == (1, (1,))
    assert paired_rows([*records[:1], *records[3:]]) == []


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
        *((ADR, "best"), (ADR, "last"), ("trades", "best"), ("trades", "last"))
    ]
    assert paired_rows(records[::-1]) == rows


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
    assert row["marks"] == (UNKNOWN_FOOTNOTE,)
    config = digits_config()
    trained = train_record(config=config.to_json(), dataset="cifar10")
    known = replace(records[0], training_sha256=config.sha256())
    assert paired_rows([known, records[1], trained]) == []


def test_rows_have_the_footnotes_of_both_sides() -> None:
    shared = {"selected_on": "test"}
    at = evaluated([0, 0, 1, 0], method=AT, warnings=("masked",), **shared)
    adr = evaluated([1, 1, 0, 1], method=ADR, **shared)
    (row,) = paired_rows([at, adr])
    assert row["chosen_on"] == "test"
    assert row["marks"] == (
        "best epoch chosen on the test split: optimistic",
        "warning from autoattack (seed 0): masked",
        UNKNOWN_FOOTNOTE,
    )


def test_a_seed_with_damaged_outcomes_is_left_out() -> None:
    records = [evaluated([0, 0, 1, 0], method=AT, seed=seed) for seed in (0, 1)]
    records += [evaluated([1, 1, 0, 1], method=ADR, seed=seed) for seed in (0, 1)]
    damaged = replace(records[3], verdicts=Outcomes(clean="", robust="?"))
    (row,) = paired_rows([*records[:3], damaged])
    assert (row["seeds"], figure(row["difference"]).seeds) == (1, (0,))


def test_many_comparisons_have_a_note_on_chance() -> None:
    records = [
        evaluated([1, 0, 1, 0], method=method, suite=f"pgd-{steps}")
        for method in (AT, ADR)
        for steps in range(1, 21)
    ]
    few = [record for record in records if record.suite != "pgd-20"]
    for chosen, expected in ((records, ["about 1 of these 20 would"]), (few, [])):
        notes = table(build_report(chosen, baselines=False), "paired").notes
        found = [note for note in notes if note.startswith("p is not corrected")]
        assert len(found) == len(expected)
        assert all(text in note for text, note in zip(expected, found, strict=True))


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


@pytest.mark.parametrize(
    ("at", "awp", "found"),
    [(True, False, True), (False, False, True), (True, True, True), (False, True, False)],
)
def test_awp_may_lack_nesterov_momentum(at: bool, awp: bool, found: bool) -> None:
    configs = [
        digits_config(nesterov=at),
        digits_config(method="at+awp", awp_rho=0.005, nesterov=awp),
    ]
    records: list[Record] = []
    for config in configs:
        own = {"method": config.method, "training_sha256": config.sha256()}
        records.append(evaluated([1, 0, 1, 0], **own))
        records.append(train_record(method=config.method, config=config.to_json()))
    assert len(paired_rows(records)) == found


def test_intervals_are_explained() -> None:
    records = [evaluated([0, 0, 1, 0], method=AT), evaluated([1, 1, 0, 1], method=ADR)]
    notes = table(build_report(records, intervals=True), "paired").notes
    assert INTERVALS_NOTE in notes


def test_third_party_weights_are_not_compared() -> None:
    foreign = foreign_record(4, 3, "mine", n=4, num_test=4)
    assert paired_rows([evaluated([0, 0, 1, 0], method=AT), foreign]) == []


def test_the_reference_shares_all_settings_but_those_of_the_method() -> None:
    """Each row is compared with the reference of as many epochs; AWP lacks Nesterov momentum."""
    adr = {
        "method": "adr+awp",
        "temperature_high": 1.0,
        "temperature_low": 0.7,
        "interpolation_low": 0.3,
        "interpolation_high": 0.9,
        "ema_decay": 0.98,
        "awp_rho": 0.005,
        "nesterov": False,
    }
    configs = {
        "digits-small-cnn-at-seed0": digits_config(),
        "digits-long-at-seed0": digits_config(epochs=60),
        "digits-small-cnn-adr+awp-seed0": digits_config(**adr),
        "digits-long-adr+awp-seed0": digits_config(epochs=60, **adr),
        "digits-longest-adr+awp-seed0": digits_config(epochs=90, **adr),
    }
    verdicts = {
        "digits-small-cnn-at-seed0": [1, 0, 0, 0],
        "digits-long-at-seed0": [1, 1, 0, 0],
    }
    own = {"dataset": "digits", "arch": "small-cnn", "published_test_set": False}
    records: list[Record] = []
    for run, config in configs.items():
        settings = {"run": run, "method": config.method, "training_sha256": config.sha256()}
        records.append(evaluated(verdicts.get(run, [1, 1, 1, 1]), **own, **settings))
        records.append(
            train_record(run=run, method=config.method, config=config.to_json(), dataset="digits")
        )
    rows = paired_rows(records)
    found = {row["method"]: (figure(row["reference"]).mean, row["marks"][-1]) for row in rows}
    assert found == {
        "adr+awp": (25.0, "settings: --epochs 30"),
        "adr+awp (long)": (50.0, "settings: --epochs 60"),
    }


@pytest.mark.parametrize("format_name", FORMATS)
def test_small_probabilities_are_never_shown_as_zero(format_name: str) -> None:
    records = [evaluated([0] * 20, method=AT), evaluated([1] * 20, method=ADR)]
    report = build_report(records, baselines=False)
    shown = render(report, format_name)
    p = exact_test([1] * 20)
    expected = {"csv": repr(p), "json": repr(p), "latex": r"\textless{}0.001"}
    assert expected.get(format_name, "<0.001") in shown.replace("\\<", "<")
    (row,) = table(report, "paired").rows
    assert row.cells["p"] == PValue(p=p)
