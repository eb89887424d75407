"""Parsing, canonical spelling and properties of methods."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.config.components import COMPONENTS, DEFAULTS, SLOTS
from adrbench.config.method import parse_method
from adrbench.errors import UsageError

SWITCHES = ("adr", "wa", "awp")
METHODS = [
    "+".join([objective, *chosen])
    for objective in ("at", "trades", "standard")
    for count in range(4)
    for chosen in itertools.combinations(SWITCHES, count)
]


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("at", "at"),
        ("adr", "adr"),
        ("at+adr", "adr"),
        ("awp+adr", "adr+awp"),
        ("wa", "at+wa"),
        ("AWP + wa + ADR + Trades", "trades+adr+wa+awp"),
        ("standard", "standard"),
        ("wa+at+awp", "at+wa+awp"),
    ],
)
def test_canonical_spelling(spelling: str, canonical: str) -> None:
    assert str(parse_method(spelling)) == canonical


@given(st.sampled_from(METHODS).flatmap(lambda m: st.permutations(m.split("+"))))
def test_the_order_of_tokens_does_not_matter(tokens: list[str]) -> None:
    method = parse_method("+".join(tokens))
    assert method == parse_method("+".join(sorted(tokens)))
    assert parse_method(str(method)) == method


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("adrr", "did you mean adr"),
        ("adr+adr", "twice"),
        ("at+trades", "two objectives, at and trades"),
        ("adr+", "unknown method token ''"),
        ("", "unknown method token ''"),
    ],
)
def test_invalid_methods_are_refused(spelling: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_method(spelling)


def test_one_adr_run_gives_two_report_rows() -> None:
    for run in ("adr", "adr+wa"):
        assert parse_method(run).row("student") == "adr"
        assert parse_method(run).row("average") == "adr+wa"
    assert parse_method("trades+wa+awp").row("student") == "trades+awp"


def test_adr_and_wa_have_an_average_and_wa_deploys_it() -> None:
    found = {
        m: (parse_method(m).has_average, parse_method(m).deployed) for m in ("at", "adr", "wa")
    }
    assert found == {"at": (False, "student"), "adr": (True, "student"), "wa": (True, "average")}


def test_every_slot_has_a_component() -> None:
    assert {component.slot for component in COMPONENTS.values()} == set(SLOTS)
    assert all(COMPONENTS[token].slot == slot for slot, token in DEFAULTS.items())
    assert parse_method("awp").filled["objective"] is COMPONENTS[DEFAULTS["objective"]]
