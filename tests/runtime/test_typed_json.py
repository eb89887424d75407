"""JSON to frozen dataclasses: every type is checked, and the error names the field."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.printable import is_printable, printable
from adrbench.runtime.typed_json import from_json, to_json


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int
    flag: bool
    choice: Literal["a", "b"]
    inner: Inner
    items: tuple[Inner, ...] = ()
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    anything: Any = None
    kind: str = dataclasses.field(default="outer", init=False)


GOOD: dict[str, Any] = {"count": 1, "flag": True, "choice": "a", "inner": {"name": "x"}}

whole_numbers = st.integers(-(2**63), 2**63 - 1)
printable_texts = st.text().map(printable)
inners = st.builds(Inner, printable_texts, st.none() | st.floats(allow_nan=False))
outers = st.builds(
    Outer,
    count=whole_numbers,
    flag=st.booleans(),
    choice=st.sampled_from(["a", "b"]),
    inner=inners,
    items=st.lists(inners, max_size=3).map(tuple),
    table=st.dictionaries(printable_texts, whole_numbers, max_size=3),
    anything=st.none() | printable_texts | st.lists(st.integers()),
)


@given(outers)
def test_a_value_survives_json(value: Outer) -> None:
    data = json.loads(json.dumps(to_json(value)))
    del data["kind"]
    assert from_json(Outer, data) == value


def test_missing_fields_get_their_defaults() -> None:
    assert from_json(Outer, GOOD) == Outer(1, True, "a", Inner("x"))


def test_an_integer_is_read_as_a_float() -> None:
    value = from_json(Inner, {"name": "x", "value": 1}).value
    assert (value, type(value)) == (1.0, float)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [1, 50])
def test_nested_lists_are_kept(levels: int) -> None:
    value = {"a": nested(levels - 1)} if levels > 1 else {}
    assert from_json(Outer, GOOD | {"anything": value}).anything == value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 1.0}, "field count should be int, not 1.0"),
        ({"count": True}, "field count should be int, not True"),
        ({"count": "1"}, "field count should be int, not '1'"),
        ({"count": None}, "field count should be int, not None"),
        ({"flag": 1}, "field flag should be bool, not 1"),
        ({"choice": "c"}, "field choice should be 'a' or 'b', not 'c'"),
        ({"choice": ["a"]}, "field choice should be 'a' or 'b'"),
        ({"inner": 3}, "field inner should be a table, not 3"),
        ({"inner": {}}, "field inner.name is missing"),
        ({"inner": {"name": "x", "value": "1"}}, "field inner.value should be float or null"),
        ({"inner": {"name": "x", "size": 1}}, "unknown field inner.size"),
        ({"items": {"name": "x"}}, "field items should be a list"),
        ({"items": [{"name": "x"}, {"name": 2}]}, r"field items\[1\].name should be str, not 2"),
        ({"table": {"a": "b"}}, r"field table\[...\] should be int, not a str"),
        ({"table": [1]}, r"field table should be a table, not \[1\]"),
        ({"kind": "outer"}, "unknown field kind"),
        ({"count": "x" * 50}, "field count should be int, not a str"),
        ({"count": 2**63}, "field count should fit into 64 bits"),
        (
            {"inner": {"name": "x", "value": 10**400}},
            "field inner.value is not usable .number out of range",
        ),
        ({"choice": 10**400}, "field choice should be 'a' or 'b', not a int"),
        ({"anything": nested(51)}, r"field anything\[0\] is nested too deep, at most 50 levels"),
        ({"flag": nested(900)}, r"field flag should be bool, not \[\["),
        ({"a\n" + "b" * 99: ""}, r"unknown field a\\nb{37}$"),
        ({"a\x1b\ud800": 1}, r"unknown field a\\x1b\\ud800$"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_json(Outer, GOOD | dict(change))


@pytest.mark.parametrize("levels", [1, 22])
def test_strings_and_keys_are_made_printable_wherever_they_are(levels: int) -> None:
    deep: Any = "\x1b[2J"
    for _ in range(levels):
        deep = [{"\u202e": deep}]
    hostile = {"inner": {"name": "a\nb"}, "table": {"\x9b": 1}, "anything": {"a": deep}}
    read = from_json(Outer, GOOD | hostile)
    assert (read.inner.name, read.table) == (r"a\nb", {r"\x9b": 1})
    assert is_printable(json.dumps(to_json(read), ensure_ascii=False))
    assert "[2J" in json.dumps(to_json(read))


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"^field {name} is missing$"):
        from_json(Outer, {key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_values_that_are_no_table_are_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"^Outer should be a table"):
        from_json(Outer, data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "items", "table", "other"]), json_values))
def test_any_json_is_read_or_refused_with_a_value_error(data: dict[str, Any]) -> None:
    try:
        read = from_json(Outer, GOOD | data)
    except ValueError:
        return
    assert isinstance(read.count, int)
    assert isinstance(read.inner, Inner)
    assert read.choice in ("a", "b")
