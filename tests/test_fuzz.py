"""Readers of files return a result or one sentence of error, whatever the file contains.

Results and configurations may be truncated, edited by hand or malicious; for data see `data/`.
"""

import copy
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adrbench.config.declare import parse_fraction
from adrbench.config.method import Method, parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import AttackConfig, TrainConfig
from adrbench.data import DATASETS, dataset_name
from adrbench.errors import DataError, RecordError, UsageError, unknown_name
from adrbench.models.architectures import canonical_arch
from adrbench.report import FORMATS, build_report, render, results_frame
from adrbench.results.records import Record, Skipped, read_record, read_records
from adrbench.runtime.typed_json import from_json, to_json
from fuzzing import MEBIBYTE, fuzz
from messages import assert_one_line
from report_records import attack_record, foreign_record, inspect_record, train_record
from runner import command

rarely = settings(fuzz, max_examples=40)


# Unusual values in JSON


#: In a file, this prefix and a number are replaced by that many nested lists.
DEEP = "deep"
SURROGATES = "".join(map(chr, (0xD800, 0xDC80, 0xDFFF)))
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
odd_texts = st.sampled_from(
    [
        *("", " ", "\0", "\n", "\x1b[2J", "-", "|", "[", "pgd-²", "pgd-" + "9" * 5000, "at+at"),
        *("8/255", "1e999", "seed0", "robustbench:", SURROGATES, "x" * 100_000, " " * 100_000),
        *(f"{DEEP}{levels}." for levels in (40, 60, 200, 600, 800, 900, 940, 950, 960, 970, 2000)),
    ]
)
numbers = st.integers() | st.floats()
odd_numbers = st.sampled_from(
    [-1, 0, 1, 2**31, 2**63 - 1, 2**63, 10**20, 10**308, 10**400, 1e308, 5e-324, math.nan, math.inf]
)
scalars = st.none() | st.booleans() | numbers | odd_numbers | texts | odd_texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value nested in `value`."""
    keys = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield (*above, key)
        yield from places(value[key], (*above, key))


def like(value: Any) -> st.SearchStrategy[Any]:
    """Return values of the type of `value`, which pass more checks than others."""
    if isinstance(value, str):
        return texts | odd_texts
    if isinstance(value, float):
        return st.floats() | odd_numbers
    if isinstance(value, int) and not isinstance(value, bool):
        return st.integers() | odd_numbers.filter(lambda number: isinstance(number, int))
    if isinstance(value, dict):
        return st.dictionaries(texts | st.sampled_from(["alpha", "steps"]), json_values, max_size=3)
    return json_values


@st.composite
def mutated(draw: st.DrawFn, whole: Any) -> Any:
    """Return `whole` with one nested value removed, renamed, added or replaced."""
    changed = copy.deepcopy(whole)
    *above, last = draw(st.sampled_from(list(places(whole))))
    inside = changed
    for key in above:
        inside = inside[key]
    match draw(st.sampled_from(["like", "like", "like", "replace", "remove", "rename", "add"])):
        case "remove":
            del inside[last]
        case "rename" if isinstance(inside, dict):
            inside[draw(texts)] = inside.pop(last)
        case "add" if isinstance(inside, dict):
            inside[draw(texts)] = draw(json_values)
        case "replace":
            inside[last] = draw(json_values)
        case _:
            inside[last] = draw(like(inside[last]))
    return changed


def spell(value: Any) -> str:
    """Return `value` as JSON, with the nested lists that DEEP stands for."""
    text = json.dumps(value)
    while (start := text.find(f'"{DEEP}')) >= 0:
        levels, end = text[start + len(DEEP) + 1 :].split('."', 1)
        text = f"{text[:start]}{'[' * int(levels)}{']' * int(levels)}{end}"
    return text


# Records


PGD = {"suite": "pgd-20", "n": 1_000, "num_test": 1_000}
ATTACKS: list[Record] = [
    attack_record(900, 500, **PGD, parameters={"alpha": 0.01, "steps": 20}),
    attack_record(900, 500, **PGD, parameters={"alpha": 0.02, "steps": 20}, seed=1),
    attack_record(900, 400, **PGD, selection="last", warnings=("one", "two")),
    foreign_record(8_024, 5_106, "robustbench:Addepalli2021Towards_RN18", arch="zoo"),
    attack_record(8_000, 4_000),
]
HISTORY = ({"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": None})
TRAINED = train_record(config={"lr": 0.1, "milestones": [0.5]}, history=HISTORY)
DOCUMENTS = [
    json.loads(json.dumps(to_json(record))) for record in (*ATTACKS, TRAINED, inspect_record())
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one directory for all examples, each of which replaces the previous files."""
    return tmp_path_factory.mktemp("fuzz")


def assert_reported(folder: Path, documents: Sequence[Any]) -> int:
    """Check that every format shows every document or skips its file; return how many it shows."""
    for old in folder.glob("*.json"):
        old.unlink()
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(spell(document))
    skipped = Skipped()
    try:
        records = read_records(folder, skipped)
    except RecordError as error:
        assert_one_line(str(error))
        records = []
    for reason in skipped.reasons.values():
        assert_one_line(reason)
    assert len(records) + len(skipped.reasons) == len(documents)
    assert len(results_frame(records)) == sum(record.kind == "attack" for record in records)
    for intervals in (False, True):
        report = build_report(records, intervals=intervals)
        for columns in (table.columns for table in report.tables):
            assert len({column.key for column in columns}) == len(columns)
        for form in FORMATS:
            shown = render(report, form, width=100)
            shown.encode()
            assert "\x1b" not in shown or form in ("csv", "json")
            assert len(shown) < 2 * MEBIBYTE
            if form == "json":
                json.loads(shown, parse_constant=pytest.fail)
    return len(records)


@fuzz
@given(changes=st.lists(st.sampled_from(DOCUMENTS).flatmap(mutated), min_size=1, max_size=3))
def test_a_report_shows_or_skips_altered_records(folder: Path, changes: list[Any]) -> None:
    assert_reported(folder, [*changes, *DOCUMENTS[:2]])


COUNTS = ("n", "num_test", "clean_correct", "robust_correct")
FIRST, LAST = DOCUMENTS[0], DOCUMENTS[-1]


@pytest.mark.parametrize(
    ("document", "is_shown"),
    [
        *((FIRST | {"parameters": {"alpha": value}}, True) for value in (math.nan, math.inf)),
        (FIRST | {"parameters": {"alpha": 10**400}}, True),
        *(
            (FIRST | {"parameters": FIRST["parameters"] | more}, True)
            for more in ({}, {"a": None}, {"alpha": 0.01 + 1e-9}, {"steps": "20"})
        ),
        *(
            (FIRST | {"parameters": {"a": f"{DEEP}{n}."}}, False)
            for n in (60, 200, 900, 950, 960, 970, 980, 2000)
        ),
        *((FIRST | {"suite": suite}, True) for suite in ("pgd-²", "pgd-" + "9" * 5000, "pgd-", "")),
        *((FIRST | {"run": run * 50_000}, True) for run in ("x", " ", "x ", "\n", SURROGATES)),
        *((FIRST | {"warnings": [word * 50_000]}, True) for word in ("x", " ", "x ", "\x1b[2J")),
        *((FIRST | dict.fromkeys(COUNTS, n), True) for n in (1, 2**53 + 1, 2**63 - 1)),
        *((FIRST | dict.fromkeys(COUNTS, n), False) for n in (0, 2**63, 10**400)),
        *((FIRST | {"seed": seed}, shown) for seed, shown in ((-(2**63), True), (2**63, False))),
        *((FIRST | {"threat_model": {"norm": "L2", "eps": e}}, True) for e in (5e-324, 999.0)),
        *(
            (FIRST | {"threat_model": {"norm": "L2", "eps": e}}, False)
            for e in (0, math.nan, 1e308, 10**400)
        ),
        *((LAST | {"seconds": value}, True) for value in (math.nan, math.inf, -1, 1e308)),
        (LAST | {"seconds": 10**400}, False),
        (LAST | {"history": [{"epoch": f"{DEEP}900."}]}, False),
    ],
    ids=itertools.count(),
)
def test_a_report_shows_or_skips_an_unusual_record(
    folder: Path, document: Any, is_shown: bool
) -> None:
    assert assert_reported(folder, [document, *DOCUMENTS]) == is_shown + len(DOCUMENTS)


@fuzz
@given(content=st.binary(max_size=60) | json_values.map(lambda value: spell(value).encode()))
def test_an_arbitrary_file_is_rejected_as_a_record(folder: Path, content: bytes) -> None:
    path = folder / "any.json"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert_one_line(str(caught.value))


@pytest.mark.parametrize(
    "schema", ['"a\\nb"', f'"{"x" * 9999}"', "[" * 99 + "]" * 99, "-" + "9" * 4000]
)
def test_an_invalid_schema_is_rejected_in_a_short_sentence(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(f'{{"kind": "attack", "schema": {schema}}}')
    with pytest.raises(RecordError, match="its schema") as caught:
        read_record(path)
    assert_one_line(str(caught.value))
    assert len(str(caught.value)) < 200 + len(str(path))


def test_pipes_and_huge_files_are_rejected_as_records(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)  # a sparse file, which takes no space
    for name, words in (("pipe", "it is not a file"), ("large", "at most 33,554,432 are read")):
        with pytest.raises(RecordError, match=words):
            read_record(tmp_path / f"{name}.json")


@rarely
@given(document=st.sampled_from(DOCUMENTS).flatmap(mutated), form=st.sampled_from(FORMATS))
def test_the_report_command_succeeds_beside_an_altered_record(
    tmp_path_factory: pytest.TempPathFactory, document: Any, form: str
) -> None:
    results = tmp_path_factory.mktemp("results")
    (results / "good.json").write_text(spell(DOCUMENTS[0]))
    (results / "other.json").write_text(spell(document))
    outcome = command("report", results, "--format", form)
    assert (outcome.code, outcome.lines) == (0, []), outcome.err
    assert len(outcome.notes) <= 1


# Configurations


def good_config() -> Any:
    preset = find_preset("digits", "small-cnn", parse_method("adr+awp"), num_train=1437)
    values: dict[str, Any] = {**preset.values, "val_size": 143}
    config = TrainConfig.of(dataset="digits", arch="small-cnn", method="adr+awp", **values)
    return json.loads(json.dumps(config.to_json()))


GOOD_ATTACK = to_json(AttackConfig(n=3, alpha=0.1))


def error_text(read: Callable[[], object]) -> str:
    """Return the text of the ValueError that `read` raises, or "none"."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return "none"


@fuzz
@given(data=json_values | mutated(good_config()))
def test_a_training_configuration_is_read_or_rejected(data: Any) -> None:
    nested = json.loads(spell(data)) if "deep2000" not in json.dumps(data) else data
    assert len(error_text(lambda: TrainConfig.from_json(nested)).splitlines()) == 1


@fuzz
@given(data=json_values | mutated(GOOD_ATTACK))
def test_an_attack_configuration_is_read_or_rejected(data: Any) -> None:
    assert len(error_text(lambda: from_json(AttackConfig, data)).splitlines()) == 1


@pytest.mark.parametrize("name", ["n", "restarts", "batch_size", "seed"])
@pytest.mark.parametrize("value", [-(10**400), 10**400])
def test_extreme_numbers_are_rejected(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is "):
        AttackConfig(**{name: value})  # type: ignore[arg-type]


# Command line arguments


@fuzz
@given(text=texts | odd_texts | st.from_regex(r"[-+0-9./e_ ]{1,9}", fullmatch=True))
@example("9" * 5000 + "/" + "9" * 5000)
def test_arguments_are_parsed_or_rejected(text: str) -> None:
    uses: list[tuple[Callable[[str], object], type]] = [
        (lambda word: parse_fraction(word, "eps"), float),
        (parse_method, Method),
        (canonical_arch, str),
        (dataset_name, str),
    ]
    for use, result in uses:
        try:
            assert isinstance(use(text), result)
        except (UsageError, DataError) as error:
            assert_one_line(str(error))
    assert_one_line(str(unknown_name("word", text, DATASETS)))
