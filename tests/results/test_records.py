"""Records: round trips, migration, and what is refused with which message."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adrbench.results.records
from adrbench.config.threat import ThreatModel
from adrbench.errors import RecordError
from adrbench.printable import printable
from adrbench.report.run_settings import fingerprint
from adrbench.results.inspection import InspectRecord
from adrbench.results.migrations import SCHEMA
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    Record,
    Session,
    Skipped,
    StageResult,
    TrainRecord,
    count_processes,
    pack_logits,
    pack_outcomes,
    read_record,
    read_records,
    unpack_logits,
    unpack_outcomes,
    write_record,
)
from report_records import attack_record, digits_config, train_record

KEPT = Path(__file__).parents[1] / "fixtures" / "records"


@given(st.lists(st.booleans(), max_size=70))
def test_outcomes_survive_packing(outcomes: list[bool]) -> None:
    packed = pack_outcomes(np.array(outcomes, dtype=np.bool_))
    assert unpack_outcomes(packed, len(outcomes)).tolist() == outcomes


def test_outcomes_are_packed_first_image_first() -> None:
    """Ten images of which the first and the tenth are correct: bytes 1000 0000, 0100 0000."""
    packed = pack_outcomes(np.array([True] + 8 * [False] + [True]))
    assert packed == "gEA="


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        ("gEA=", "2 bytes of outcomes cannot hold 17 images"),
        ("g!", "the outcomes are not base64"),
        ("ł", "the outcomes are not base64"),
    ],
)
def test_outcomes_that_cannot_be_those_of_n_images(packed: str, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        unpack_outcomes(packed, 17)


printable_texts = st.text().map(printable)


@given(
    counts=st.tuples(
        st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6)
    ).map(sorted),
    eps=st.floats(1e-9, 1),
    text=printable_texts,
    parameters=st.dictionaries(printable_texts, st.integers() | printable_texts | st.booleans()),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
def test_an_attack_record_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    eps: float,
    text: str,
    parameters: dict[str, Any],
    seed: int | None,
) -> None:
    robust, clean, n, num_test = counts
    record = attack_record(
        clean,
        robust,
        n=n,
        num_test=num_test,
        threat_model=ThreatModel(norm="L2", eps=eps),
        run=text,
        warnings=(text, text),
        parameters=parameters,
        seed=seed,
        stages=(StageResult(name=text, survivors=robust, seconds=eps),),
    )
    path = tmp_path_factory.mktemp("records") / "record.json"
    write_record(path, record)
    assert read_record(path) == record


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), max_size=24),
    num_classes=st.integers(1, 4),
)
def test_logits_survive_packing(values: list[float], num_classes: int) -> None:
    rows = len(values) // num_classes
    logits = np.array(values[: rows * num_classes], np.float32).reshape(rows, num_classes)
    unpacked = unpack_logits(pack_logits(logits), num_classes)
    assert unpacked.dtype == np.float32
    assert np.array_equal(unpacked, logits)


@pytest.mark.parametrize("packed", ["!", "AAAA", "AAAAAAAAAAA="])
def test_logits_of_another_number_of_classes(packed: str) -> None:
    with pytest.raises(RecordError, match="the logits are not those of 3 classes"):
        unpack_logits(packed, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"robust_correct": 2}, r"its counts are \(3, 2\), but its outcomes give \(3, 1\)"),
        ({"clean_correct": 4}, "its counts are"),
        ({"verdicts": Outcomes(clean="4A==", robust="EA==")}, "its counts are"),
        (
            {"verdicts": Outcomes(clean="4AAA", robust="gA==")},
            "3 bytes of outcomes cannot hold 8 images",
        ),
        ({"verdicts": Outcomes(clean="4A==", robust="?")}, "the outcomes are not base64"),
        ({"stages": (StageResult(name="a", survivors=2, seconds=0.0),)}, "its stages leave 2"),
        (
            {"stages": tuple(StageResult(name="a", survivors=n, seconds=0.0) for n in (0, 1))},
            "its stages leave 1",
        ),
    ],
)
def test_counts_that_contradict_the_outcomes_are_found(
    tmp_path: Path, changes: dict[str, Any], words: str | None
) -> None:
    """Of eight images the first three are clean (0xE0), and the first is robust (0x80)."""
    values: dict[str, Any] = {
        "n": 8,
        "clean_correct": 3,
        "robust_correct": 1,
        "stages": (StageResult(name="a", survivors=1, seconds=0.0),),
        "verdicts": Outcomes(clean="4A==", robust="gA=="),
    }
    path = tmp_path / "record.json"
    write_record(path, attack_record(3, 1, **(values | changes)))
    if words is None:
        assert isinstance(read_record(path), AttackRecord)
        return
    with pytest.raises(RecordError, match=rf"is not a valid record: .*{words}"):
        read_record(path)


def test_a_train_record_survives_a_round_trip(tmp_path: Path) -> None:
    record = train_record(history=({"epoch": 1, "temperature": None, "train_loss": 0.1},))
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record


def test_records_of_schema_1_are_read() -> None:
    attack, train = read_records_named("attack-1.json", "train-1.json")
    assert isinstance(attack, AttackRecord)
    assert (attack.method, attack.weights, attack.selection) == ("adr+wa+awp", "average", "best")
    assert (attack.clean_correct, attack.robust_correct, attack.n) == (5, 4, 20)
    for packed, count in ((attack.verdicts.clean, 5), (attack.verdicts.robust, 4)):
        assert unpack_outcomes(packed, attack.n).sum() == count
    assert isinstance(train, TrainRecord)
    assert train.history[0]["average_robust_correct"] == 19
    assert train.config["eps"] == 0.1


def test_records_of_schema_2_get_a_label_from_their_run_and_no_training_images() -> None:
    attack, train = read_records_named("attack-2.json", "train-2.json")
    for record in (attack, train):
        assert not isinstance(record, InspectRecord)
        assert record.run == "digits-short-adr+wa-seed0"
        assert (record.schema, record.label) == (SCHEMA, "short")
        assert record.training_images_sha256 is None
    assert isinstance(attack, AttackRecord)
    assert (attack.clean_correct, attack.robust_correct, attack.n) == (5, 4, 20)


def test_third_party_weights_get_no_label(tmp_path: Path) -> None:
    data = json.loads((KEPT / "attack-2.json").read_text()) | {"weights": "file", "seed": None}
    (tmp_path / "record.json").write_text(json.dumps(data))
    assert read_record(tmp_path / "record.json").label == ""


def read_records_named(*names: str) -> list[Record]:
    return [read_record(KEPT / name) for name in names]


BROKEN = {
    "newer.json": f"its schema is 99, but this version reads up to {SCHEMA}; update adrbench",
    "unknown-schema.json": "its schema 0 was never published",
    "text-schema.json": "its schema is '1'",
    "foreign.json": "is not an adrbench record",
    "list.json": "is not an adrbench record",
    "odd-kind.json": "is not an adrbench record",
    "other-kind.json": "is not an adrbench record",
    "missing-field.json": "field suite is missing",
    "extra-field.json": "unknown field robust_accuracy",
    "text-count.json": "field robust_correct should be int, not '1'",
    "impossible-counts.json": "counts should satisfy robust_correct <= clean_correct",
    "infinite-eps.json": "eps is inf, but pixels lie in",
    "cut.json": "is not readable as JSON",
    "binary.json": "is not readable as JSON",
}


VALID = ("attack-1.json", "attack-2.json", "train-1.json", "train-2.json")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_foreign_files_are_refused_by_name(name: str) -> None:
    with pytest.raises(RecordError, match=BROKEN[name]) as caught:
        read_record(KEPT / name)
    assert str(KEPT / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_fixture_is_tested() -> None:
    kept = {path.name for path in KEPT.iterdir()}
    assert kept == {*BROKEN, *VALID}


def test_json_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(RecordError, match="is not readable as JSON"):
        read_record(path)


def test_older_records_are_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history in which schema 2 had the key `attack` for what is `suite` before and after."""

    def rename(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda data: {new if key == old else key: value for key, value in data.items()}

    steps = {1: rename("suite", "attack"), 2: rename("attack", "suite")}
    monkeypatch.setattr(adrbench.results.records, "MIGRATIONS", steps)
    monkeypatch.setattr(adrbench.results.records, "SCHEMA", 3)
    record = read_record(KEPT / "attack-1.json")
    assert isinstance(record, AttackRecord)
    assert (record.schema, record.suite) == (3, "pgd-2")


def test_a_directory_gives_its_records_in_order_and_lists_the_rest(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "deep" / "er")
    shutil.copy(KEPT / "train-1.json", tmp_path / "a.json")
    shutil.copy(KEPT / "attack-1.json", tmp_path / ".hidden.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("not looked at")
    skipped = Skipped()
    records = read_records(tmp_path, skipped)
    assert [record.kind for record in records] == ["train", "attack", "attack", "train", "train"]
    names = {path.name for path in skipped.reasons}
    assert names == {*BROKEN, "folder.json"}


@pytest.mark.parametrize("content", [{}, {"other.json": "{}"}])
def test_a_directory_without_records_is_refused_with_the_next_action(
    tmp_path: Path, content: dict[str, str]
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=r"no results in .*: run `adrbench attack` first"):
        read_records(tmp_path)


@pytest.mark.parametrize("field", ["clean_correct", "robust_correct", "n"])
def test_impossible_counts_are_refused(field: str) -> None:
    record = attack_record(90, 50, n=100, num_test=100)
    with pytest.raises(ValueError, match="counts should satisfy"):
        dataclasses.replace(record, **{field: 101})  # type: ignore[arg-type]


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", attack_record(90, 50, n=100))
    data = json.loads((tmp_path / "record.json").read_text())
    assert (data["schema"], data["kind"], data["robust_correct"]) == (SCHEMA, "attack", 50)
    assert data["threat_model"] == {"norm": "Linf", "eps": 8 / 255}


def test_published_records_are_read_only_when_their_directory_is_given(tmp_path: Path) -> None:
    own, published = tmp_path / "own.json", tmp_path / "published" / "digits" / "theirs.json"
    for path in (own, published):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, attack_record(8_000, 4_700, run=path.stem))
    assert [record.run for record in read_records(tmp_path)] == ["own"]
    assert [record.run for record in read_records(tmp_path / "published")] == ["theirs"]


def test_the_largest_number_of_processes_of_a_run_counts() -> None:
    sessions = [
        Session(first_step=step, processes=processes, device="cpu", started="2026-01-01T00:00:00")
        for step, processes in ((0, 2), (10, 1))
    ]
    assert count_processes(sessions) == 2
    assert count_processes(()) == 1
    config = digits_config()
    record = train_record(config=config.to_json(), sessions=tuple(sessions))
    assert fingerprint(config, record) == config.sha256(2) != config.sha256(1)
