"""`load_results`: a row per evaluation, with its outcomes and whether a report leaves it out."""

import doctest
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adrbench
from adrbench.config.threat import ThreatModel
from adrbench.errors import RecordError
from adrbench.report import build_report, dataframe, load_results, results_frame, select_latest
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    StageResult,
    pack_outcomes,
    write_record,
)
from report_records import attack_record, foreign_record, train_record

ROOT = Path(__file__).parents[2]
CLEAN, ROBUST = [True, True, False, True], [True, False, False, False]


def evaluated(record: AttackRecord) -> AttackRecord:
    """Return `record` on four images, with the outcomes above."""
    verdicts = Outcomes(
        clean=pack_outcomes(np.array(CLEAN)), robust=pack_outcomes(np.array(ROBUST))
    )
    stages = (StageResult(name="apgd-ce", survivors=1, seconds=1.0),)
    size = {"n": 4, "num_test": 4, "clean_correct": 3, "robust_correct": 1}
    return replace(record, verdicts=verdicts, stages=stages, **size)  # type: ignore[arg-type]


def test_outcomes_are_arrays_of_booleans_in_the_order_of_the_test_set() -> None:
    (row,) = results_frame([evaluated(attack_record(8_000, 5_000))]).to_dict("records")
    for name, expected in (("clean_outcomes", CLEAN), ("robust_outcomes", ROBUST)):
        assert row[name].dtype == np.bool_
        assert row[name].tolist() == expected


def test_how_the_evaluation_ran_is_that_of_the_record() -> None:
    how = {"searched": "float16", "rechecked": 3, "repeated": 250, "compiled": True}
    (row,) = results_frame([attack_record(8_000, 5_000, **how)]).to_dict("records")
    assert {name: row[name] for name in how} == how
    assert row["judged"] == row["precision"] == "float32"


def test_records_without_outcomes_have_none() -> None:
    (row,) = results_frame([attack_record(8_000, 5_000)]).to_dict("records")
    assert row["robust_outcomes"] is row["clean_outcomes"] is None


def test_rows_that_a_report_leaves_out_are_superseded() -> None:
    """Of three records of one seed and suite the newest counts, whatever their order."""
    dates = ("2026-01-02", "2026-01-04", "2026-01-03")
    records = [attack_record(8_000, 4_700 + k, created=date) for k, date in enumerate(dates)]
    others = [
        attack_record(8_000, 4_700, seed=1),
        attack_record(8_000, 4_700, suite="pgd-20"),
        attack_record(8_000, 4_700, threat_model=ThreatModel(norm="Linf", eps=4 / 255)),
        foreign_record(8_000, 4_700, "mine"),
    ]
    frame = results_frame([*records, *others])
    assert frame["superseded"].dtype == bool
    assert frame["superseded"].tolist() == [True, False, True, False, False, False, False]
    shown = build_report([*records, *others], baselines=False).tables
    counts = {
        count
        for table in shown
        for row in table.rows
        for count in getattr(row.cells.get("robust autoattack"), "correct", ())
    }
    assert counts == set(frame[~frame["superseded"]]["robust_correct"])


def test_latest_marks_the_rows_of_a_report_of_only_the_latest() -> None:
    """The last two have other run names and equal weights, so that a report shows one of them."""
    dates = [f"2026-01-0{day}" for day in range(1, 7)]
    changed: list[dict[str, Any]] = [{"weights_sha256": digit * 64} for digit in "ab"]
    changed += [{"suite": "pgd-20"}, {"suite": "pgd-20", "parameters": {"steps": 20}}]
    records = [
        foreign_record(8_000, 4_700 + k, "mine", created=date, **changes)
        for k, (date, changes) in enumerate(zip(dates, changed, strict=False))
    ]
    records += [
        attack_record(8_000, 4_710 + k, run=f"run{k}", label="", created=dates[k]) for k in (4, 5)
    ]
    frame = results_frame(records)
    assert frame["latest"].dtype == bool
    assert frame["latest"].tolist() == [False, True, False, True, False, True]
    shown = build_report(select_latest(records), baselines=False).tables
    counts = {
        count
        for table in shown
        for row in table.rows
        for key in ("robust autoattack", "robust pgd-20")
        for count in getattr(row.cells.get(key), "correct", ())
    }
    assert counts == set(frame[frame["latest"]]["robust_correct"])


def test_a_superseded_evaluation_without_an_attack_is_marked_too() -> None:
    clean = {"suite": "clean", "parameters": {}}
    records = [
        foreign_record(8_000, 8_000, "mine", created=f"2026-01-0{day}", **clean) for day in (1, 2)
    ]
    records += [foreign_record(8_000, 100, "mine")]
    assert results_frame(records)["superseded"].tolist() == [True, False, False]


def test_directories_and_files_are_read_once(tmp_path: Path) -> None:
    folder, other = tmp_path / "one", tmp_path / "other"
    write_record(folder / "a.json", evaluated(attack_record(8_000, 5_000, method="adr")))
    write_record(folder / "train.json", train_record())
    write_record(other / "b.json", evaluated(attack_record(8_000, 5_000, method="trades")))
    frame = load_results(str(folder), other / "b.json", folder / "a.json")
    assert frame["row"].tolist() == ["adr", "trades"]


def test_the_default_is_the_directory_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="results does not exist"):
        load_results()
    write_record(tmp_path / "results" / "a.json", evaluated(attack_record(8_000, 5_000)))
    assert len(load_results()) == 1


def test_the_docstring_names_every_column() -> None:
    text = inspect.getdoc(adrbench.load_results)
    assert text is not None
    described = {*re.findall(r"`(\w+)`", text)} - {"results"}
    assert described == {*results_frame([]).columns}


def test_the_example_of_the_docstring_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(dataframe) == doctest.TestResults(failed=0, attempted=7)
