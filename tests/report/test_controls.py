"""The control of each method, from the declarations of its components."""

import pytest

from adrbench.config.components import COMPONENTS, Component
from adrbench.report.controls import list_controls

NEAREST = {
    "at+wa": "at",
    "at+awp": "at",
    "at+wa+awp": "at+wa",
    "adr": "at",
    "adr+wa": "at+wa",
    "adr+awp": "at+awp",
    "adr+wa+awp": "at+wa+awp",
    "trades": "at",
    "trades+wa": "trades",
    "trades+adr": "trades",
    "trades+adr+wa": "trades+wa",
    "standard": "at",
}


@pytest.mark.parametrize(("method", "control"), NEAREST.items())
def test_a_method_is_compared_with_what_it_adds_to(method: str, control: str) -> None:
    found = list_controls(method)
    assert found[0].method == control
    assert found[0].further == ()
    assert found[-1].method == "at"


def test_where_the_control_is_missing_the_objective_is_kept_as_long_as_possible() -> None:
    found = [(control.method, control.further) for control in list_controls("trades+adr+wa")]
    assert found == [
        ("trades+wa", ()),
        ("trades", ("wa",)),
        ("at+wa", ("trades",)),
        ("at", ("wa", "trades")),
    ]


def test_settings_are_implied_by_what_is_removed_only() -> None:
    implied = {control.method: dict(control.implied) for control in list_controls("adr+awp")}
    assert implied == {"at+awp": {}, "at": {"nesterov": False}}


@pytest.mark.parametrize("method", ["at", "mine", "robustbench:Rice2020Overfitting"])
def test_plain_training_and_third_party_weights_have_none(method: str) -> None:
    assert list_controls(method) == ()


def test_a_new_component_has_controls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    added = Component(token="mart", slot="objective", summary="", builder="mart:build")
    monkeypatch.setitem(COMPONENTS, "mart", added)
    list_controls.cache_clear()
    assert [one.method for one in list_controls("mart+adr")] == ["mart", "at"]
    list_controls.cache_clear()
