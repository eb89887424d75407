"""`adrbench report`: which records and which tables it shows."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adrbench.config.threat import ThreatModel
from adrbench.report import TABLES
from adrbench.results.records import Outcomes, StageResult, write_record
from messages import assert_one_sentence
from report_records import attack_record, fixed_records, foreign_record, train_record
from runner import command, succeed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, whose `results` holds the fixed records."""
    monkeypatch.chdir(tmp_path)
    for number, record in enumerate(fixed_records()):
        write_record(tmp_path / "results" / record.dataset / f"{number:02}.json", record)
    return tmp_path


def rows(*arguments: str | Path) -> list[dict[str, str]]:
    shown = succeed("report", *arguments, "--format", "csv").out
    return list(csv.DictReader(io.StringIO(shown)))


def column(found: list[dict[str, str]], key: str) -> set[str]:
    return {row[key] for row in found}


@pytest.mark.usefixtures("here")
def test_results_are_read_from_results_by_default() -> None:
    assert rows() == rows("results")
    assert column(rows(), "dataset") == {"cifar10", "digits"}


def test_without_results_one_sentence_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("report")
    assert (outcome.code, outcome.out) == (1, "")
    assert_one_sentence(outcome.err.strip(), "results does not exist", "adrbench attack")


def test_a_single_file_is_reported_alone(here: Path) -> None:
    file = here / "results" / "cifar10" / "00.json"
    found = [row for row in rows(file, "--no-baselines") if row["table"] == "robust accuracy"]
    assert [(row["measure"], row["value"], row["seeds"]) for row in found] == [
        ("clean", "82.3", "1"),
        ("robust", "47.3", "1"),
    ]


def test_every_path_that_is_given_must_exist(here: Path) -> None:
    """It is in a directory that is also given, whose records would be read twice otherwise."""
    file = here / "results" / "missing.json"
    outcome = command("report", "results", file)
    assert (outcome.code, outcome.out) == (1, "")
    assert_one_sentence(outcome.err.strip(), f"{file} does not exist", "give a record")


def test_latest_omits_older_models_attacks_and_runs_of_one_name(here: Path) -> None:
    def write(day: int, **changes: Any) -> None:
        date = f"2026-01-{day:02}"
        record = foreign_record(8_000, 5_000 + day, "mine", created=date, **changes)
        write_record(here / "mine" / f"{day}.json", record)

    write(1, weights_sha256="a" * 64)
    write(2, weights_sha256="b" * 64)
    write(3, suite="noise", parameters={"noise": {"code": "c" * 16}})
    write(4, suite="noise", parameters={"noise": {"code": "d" * 16}})
    write(5, threat_model=ThreatModel(norm="L2", eps=0.5))
    for day, seconds in ((6, 1.0), (7, 2.0)):
        path = here / "mine" / f"train-{day}.json"
        write_record(path, train_record(created=f"2026-01-0{day}", seconds=seconds))
    found = rows("mine", "--latest", "--no-baselines")
    robust = {row["value"] for row in found if row["measure"] == "robust"}
    assert robust - {""} == {"50.02", "50.04", "50.05"}
    assert [r["value"] for r in found if (r["table"], r["measure"]) == ("training", "seconds")] == [
        "2.0"
    ]
    assert {"50.01", "50.03"} <= {row["value"] for row in rows("mine", "--no-baselines")}


def test_latest_never_mixes_versions_of_an_attack(here: Path) -> None:
    def write(day: int, eps: float, code: str) -> None:
        record = foreign_record(
            8_000,
            5_000 + day,
            "mine",
            created=f"2026-01-{day:02}",
            suite="noise",
            parameters={"noise": {"code": 16 * code}},
            threat_model=ThreatModel(eps=eps),
        )
        write_record(here / "mine" / f"{day}.json", record)

    write(1, 0.05, "a")
    write(2, 0.1, "a")
    write(3, 0.05, "b")
    latest = rows("mine", "--latest", "--no-baselines")
    assert {row["value"] for row in latest if row["measure"] == "robust"} == {"50.03"}
    write(4, 0.1, "b")
    latest = rows("mine", "--latest", "--no-baselines")
    found = {row["value"] for row in latest if row["measure"] == "robust"}
    assert found == {"50.03", "50.04"}


def test_a_file_that_is_no_record_is_refused(here: Path) -> None:
    (here / "table.csv").write_text("a,b\n", "utf-8")
    outcome = command("report", "table.csv")
    assert outcome.code == 1
    assert_one_sentence(outcome.err.strip(), "table.csv is not readable as JSON")


def test_a_record_that_is_given_twice_counts_once(here: Path) -> None:
    once = rows("results")
    file = next((here / "results" / "digits").iterdir())
    assert rows("results", "results/digits", file, "./results") == once


def test_a_published_part_has_to_be_given_itself(here: Path) -> None:
    published = here / "results" / "published" / "one.json"
    write_record(published, attack_record(8_000, 5_000, dataset="theirs", num_classes=3))
    assert "theirs" not in column(rows("results"), "dataset")
    assert "theirs" in column(rows("results", published.parent), "dataset")


@pytest.mark.parametrize(
    ("given", "datasets"),
    [
        (["digits"], {"digits"}),
        (["digits", "cifar10"], {"cifar10", "digits"}),
        (["digits, cifar10"], {"cifar10", "digits"}),
    ],
)
@pytest.mark.usefixtures("here")
def test_dataset_selects_records_of_all_kinds(given: list[str], datasets: set[str]) -> None:
    found = rows(*(part for name in given for part in ("--dataset", name)))
    assert column(found, "dataset") == datasets
    assert ("training" in column(found, "table")) == ("cifar10" in datasets)


def test_a_data_set_whose_name_has_a_comma_can_be_selected(here: Path) -> None:
    write_record(here / "results" / "one.json", attack_record(8_000, 5_000, dataset="a,b"))
    assert column(rows("--dataset", "a,b"), "dataset") == {"a,b"}


@pytest.mark.usefixtures("here")
def test_a_data_set_without_results_is_refused_with_those_that_have_some() -> None:
    outcome = command("report", "--dataset", "digits,cifar")
    assert (outcome.code, outcome.out) == (2, "")
    assert_one_sentence(outcome.err.strip(), "no results on 'cifar'", "cifar10, digits")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("here")
def test_table_selects_tables(name: str) -> None:
    assert column(rows("--table", name), "table") == column(rows(), "table") & {*TABLES[name]}


@pytest.mark.usefixtures("here")
def test_the_names_of_tables_select_every_table() -> None:
    assert rows("--table", ",".join(TABLES)) == rows()
    assert rows("--table", "cost", "--table", "accuracy") == rows("--table", "accuracy,cost")


@pytest.mark.usefixtures("here")
def test_an_unknown_table_is_refused_with_the_nearest_name() -> None:
    outcome = command("report", "--table", "acuracy")
    assert outcome.code == 2
    assert "unknown table 'acuracy': did you mean accuracy?" in outcome.err


def test_a_table_for_which_there_are_no_results_has_a_note(here: Path) -> None:
    write_record(here / "training" / "one.json", train_record())
    outcome = succeed("report", "training", "--table", "overfitting")
    assert outcome.out == ""
    assert outcome.notes == ["note: there are no results for the overfitting table."]


def test_a_report_can_be_written_to_a_file(here: Path) -> None:
    shown = succeed("report", "--format", "markdown").out
    outcome = succeed("report", "--format", "markdown", "--out", "tables/report.md")
    assert outcome.out == ""
    assert (here / "tables" / "report.md").read_text("utf-8") == shown


def test_the_comparison_can_be_with_a_method_of_choice(here: Path) -> None:
    for k, method in enumerate(("at", "trades", "adr")):
        verdicts = Outcomes(clean="4A==", robust="wA==")  # 3 and 2 of 3
        record = attack_record(3, 2, method=method, n=3, num_test=3)
        stages = (StageResult(name="autoattack", survivors=2, seconds=1.0),)
        record = replace(record, verdicts=verdicts, stages=stages)
        write_record(here / "few" / f"{k}.json", record)
    found = rows("few", "--table", "comparison", "--against", "trades")
    assert column(found, "method") == {"at", "adr"}
    assert column(found, "against") == {"trades"}


@pytest.mark.usefixtures("here")
def test_a_method_without_comparable_results_has_a_note_and_an_unknown_one_is_refused() -> None:
    outcome = succeed("report", "--table", "accuracy", "--against", "trades")
    assert "note: no method can be compared with trades" in outcome.err
    outcome = command("report", "--against", "trade")
    assert (outcome.code, outcome.out) == (2, "")
    assert_one_sentence(outcome.err.strip(), "unknown method 'trade': did you mean trades")


def test_of_many_files_that_are_no_records_most_are_only_counted(here: Path) -> None:
    for number in range(13):
        (here / "results" / f"other{number:02}.json").write_text("{}", "utf-8")
    notes = succeed("report").notes
    assert len(notes) == 11
    assert "results/other09.json" in notes[-2]
    assert notes[-1] == "note: left out: 3 more files that are not records."
