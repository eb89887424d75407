import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.results import baselines
from adrbench.results.baselines import (
    Baseline,
    Leaderboard,
    Rank,
    canonical_architecture,
    other_radii,
    paper,
    read_paper,
    read_robustbench,
    robustbench,
    zoo_architecture,
)

EPS = 8 / 255


def raw(name: str) -> list[dict[str, str]]:
    with (Path(baselines.__file__).parent / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def baseline(robust: float) -> Baseline:
    return Baseline(
        model_id="Someone2020Something",
        dataset="cifar10",
        norm="Linf",
        eps=EPS,
        architecture="ResNet-18",
        clean_acc=80.0,
        autoattack_acc=robust,
        external_acc=None,
        additional_data=False,
        unreliable=False,
        venue="",
        link="",
    )


def test_only_adversarial_entries_are_read() -> None:
    kept = [row for row in raw("robustbench.csv") if row["threat_model"] != "corruptions"]
    assert [entry.model_id for entry in read_robustbench()] == [row["model_id"] for row in kept]


def test_a_leaderboard_holds_one_threat_model_in_order() -> None:
    entries = robustbench("cifar10", "Linf", EPS)
    assert len(entries) == 93
    assert {(entry.norm, round(entry.eps * 255, 6)) for entry in entries} == {("Linf", 8.0)}
    figures = [entry.robust_acc for entry in entries]
    assert figures == sorted(figures, reverse=True)


def test_another_radius_is_another_leaderboard() -> None:
    """Eps 0.031 is not 8/255 = 0.03137; a rounded 8/255 is."""
    assert len(robustbench("cifar10", "Linf", 0.031)) == 6
    assert Counter(other_radii("cifar10", "Linf", EPS)) == {0.031: 6}
    assert robustbench("cifar10", "Linf", 0.0313725) == robustbench("cifar10", "Linf", EPS)
    assert robustbench("cifar10", "Linf", 0.1) == []
    assert robustbench("digits", "Linf", EPS) == []


def test_the_external_figure_counts_where_there_is_one() -> None:
    """Kang2021Stable: AutoAttack 71.28, 64.20 under a stronger attack, flagged unreliable."""
    found = {entry.model_id: entry for entry in robustbench("cifar10", "Linf", EPS)}
    kang = found["Kang2021Stable"]
    assert (kang.autoattack_acc, kang.robust_acc, kang.unreliable) == (71.28, 64.20, True)
    sehwag = found["Sehwag2021Proxy_R18"]
    assert (sehwag.external_acc, sehwag.robust_acc, sehwag.unreliable) == (None, 55.54, False)


def test_venues_hold_no_markup() -> None:
    assert not [entry.venue for entry in read_robustbench() if "<" in entry.venue]


def test_rank_is_one_plus_the_strictly_better() -> None:
    """Against 60, 55, 55, 40: 55 ties for 2nd of 5, 54.99 is 4th, 61 is 1st, 0 is 5th."""
    leaderboard = Leaderboard(tuple(baseline(figure) for figure in (60.0, 55.0, 55.0, 40.0)))
    ranks = [leaderboard.rank(figure) for figure in (55.0, 54.99, 61.0, 0.0)]
    assert ranks == [Rank(place=place, of=5) for place in (2, 4, 1, 5)]


def test_a_leaderboard_is_narrowed_to_an_architecture_or_to_the_others() -> None:
    leaderboard = Leaderboard(tuple(robustbench("cifar10", "Linf", EPS)))
    same = leaderboard.of(canonical_architecture("resnet18"))
    assert {entry.architecture for entry in same.entries} == {"ResNet-18"}
    assert leaderboard.of("nothing").entries == ()
    others = same.without("Addepalli2021Towards_RN18").entries
    assert len(others) == len(same.entries) - 1
    assert same.without("nobody") is same


@given(figure=st.floats(0, 100), others=st.lists(st.floats(0, 100), max_size=20))
def test_rank_lies_among_the_rows_and_more_is_never_worse(
    figure: float, others: list[float]
) -> None:
    leaderboard = Leaderboard(tuple(baseline(other) for other in others))
    found = leaderboard.rank(figure)
    assert 1 <= found.place <= found.of == len(others) + 1
    assert leaderboard.rank(figure + 1).place <= found.place


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        ("resnet18", "ResNet-18"),
        ("preact-resnet18", "PreActResNet-18"),
        ("wrn-34-10", "WideResNet-34-10"),
        ("wrn-34-10", "WRN-34-10"),
    ],
)
def test_architectures_are_recognised(ours: str, published: str) -> None:
    assert canonical_architecture(ours) == canonical_architecture(published)


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("resnet18", "PreActResNet-18"),
        ("wrn-34-10", "WideResNet-34-15"),
        ("wrn-28-10", "WideResNet-28-10-PSSiLU"),
        ("wrn-70-16", "MeanSparse WideResNet-70-16"),
        ("wrn-1-110", "wrn-11-10"),
    ],
)
def test_different_architectures_stay_apart(ours: str, other: str) -> None:
    assert canonical_architecture(ours) != canonical_architecture(other)


def test_zoo_models_have_a_network() -> None:
    assert zoo_architecture("Addepalli2021Towards_RN18") == "ResNet-18"
    assert zoo_architecture("nobody") is None


def test_paper_rows_are_all_read() -> None:
    assert len(read_paper()) == len(raw("adr_paper.csv"))
    rows = {(row.architecture, row.method): row for row in paper("cifar10")}
    row = rows["ResNet-18", "adr+wa+awp"]
    assert (row.clean_acc, row.autoattack_acc, row.extra_data) == (83.26, 51.24, "none")


def test_paper_rows_are_of_one_threat_model() -> None:
    assert paper("cifar10", "Linf", EPS) == paper("cifar10")
    assert paper("cifar10", "L2", EPS) == []
    assert paper("cifar10", "Linf", 4 / 255) == []
    assert paper("digits") == []
