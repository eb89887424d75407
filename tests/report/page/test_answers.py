"""The sentences of a page: true, complete, and no stronger than the tables behind them."""

from dataclasses import replace
from typing import Any

import numpy as np

from adrbench.report import build_report
from adrbench.report.page.answers import answer
from adrbench.results.records import AttackRecord, Outcomes, Record, pack_outcomes
from report_records import attack_record


def evaluated(robust: int, *, seed: int = 0, n: int = 1_000, **changes: Any) -> AttackRecord:
    """Return an evaluation with outcomes; `robust` images of n, drawn with the seed."""
    order = np.random.default_rng(seed).permutation(n)
    clean = min(n, robust + 100)
    outcomes = Outcomes(clean=pack_outcomes(order < clean), robust=pack_outcomes(order < robust))
    record = attack_record(clean, robust, seed=seed, n=n, **{"num_test": n} | changes)
    return replace(record, verdicts=outcomes)


def seeds(robust: int, *, count: int = 3, **changes: Any) -> list[Record]:
    return [evaluated(robust + 3 * seed, seed=seed, **changes) for seed in range(count)]


def sentences(records: list[Record]) -> list[str]:
    return list(answer(build_report(records).tables))


def test_the_best_row_is_named_with_its_rivals_and_its_comparison() -> None:
    found = sentences([*seeds(400), *seeds(500, method="adr")])
    assert found[0] == (
        "adr has the highest robust accuracy under autoattack, best epoch, of 2 rows with 1,000 "
        "images, 3 seeds: 50.3 ± 0.3 %; next is at with 40.3 ± 0.3 %."
    )
    assert found[1].startswith("1 of 1 comparison with a control over several seeds is significant")
    assert "adr vs at +10.0 points under autoattack, best epoch (p " in found[1]
    assert found[2].startswith("adr vs at: +10.0")
    assert ", significant (p " in found[2]


def test_one_row_is_not_called_the_highest() -> None:
    found = sentences(seeds(400))
    assert found[0].startswith("at has a robust accuracy of 40.3 ± 0.3 % under autoattack")
    assert not any("highest" in one for one in found)


def test_rows_of_fewer_seeds_or_images_are_not_ranked_but_named() -> None:
    found = sentences([*seeds(400), *seeds(500, method="adr", count=1)])
    assert found[0].startswith("at has a robust accuracy")
    assert found[-1] == "Higher, but on fewer images or seeds: adr 50.0 % (1,000 images, 1 seed)."


def test_equal_rows_share_the_first_place() -> None:
    found = sentences([*seeds(400), *seeds(400, method="adr")])
    assert found[0].startswith("at and adr share the highest robust accuracy")


def test_the_strongest_attack_is_the_one_that_leaves_the_fewest() -> None:
    """Square comes last in the table; APGD-T leaves fewer images and decides."""
    records: list[Record] = []
    for method, by_square, by_apgd in (("at", 700, 300), ("adr", 600, 400)):
        records += seeds(by_square, method=method, suite="square")
        records += seeds(by_apgd, method=method, suite="apgd-t")
    assert sentences(records)[0].startswith("adr has the highest robust accuracy under apgd-t")


def test_an_ensemble_of_fewer_rows_does_not_decide() -> None:
    records = [*seeds(400, suite="pgd-20"), *seeds(500, method="adr", suite="pgd-20")]
    found = sentences([*records, *seeds(300)])
    assert found[0].startswith("adr has the highest robust accuracy under pgd-20")


def test_networks_are_named_where_they_differ() -> None:
    found = sentences([*seeds(400), *seeds(500, arch="wrn-34-10")])
    assert "at, wrn-34-10 has the highest" in found[0]
    assert "next is at, resnet18 with" in found[0]


def test_a_gap_is_judged_over_seeds() -> None:
    last: dict[str, Any] = {"selection": "last", "epoch": 200}
    records = [*seeds(400), *seeds(350, **last), *seeds(500, method="adr")]
    records += [evaluated(r, seed=i, method="adr", **last) for i, r in enumerate((520, 470, 540))]
    found = [one for one in sentences(records) if "From the best" in one or "drop exc" in one]
    assert found[0].startswith("From the best to the last epoch, under autoattack, at loses 5.0")
    assert found[1].startswith(
        "Under all attacks, the drop exceeds its variation over seeds in 1 of 2 rows: at ("
    )


def test_no_gap_is_no_loss() -> None:
    records = [*seeds(400), *seeds(400, selection="last", epoch=200)]
    found = [one for one in sentences(records) if "From the best" in one]
    assert found == ["From the best to the last epoch, under autoattack, at does not change."]


def test_why_there_is_no_p_value() -> None:
    one_seed = sentences([*seeds(400, count=1), *seeds(500, method="adr", count=1)])
    assert any("takes two training seeds or more" in one for one in one_seed)
