"""The report, end to end from records; run this file to rewrite the expected outputs."""

import csv
import io
import json
import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.report import (
    FORMATS,
    Report,
    build_report,
    load_results,
    render,
    results_frame,
)
from adrbench.report.cell_text import grid
from adrbench.report.export import KEYS, as_plain
from adrbench.report.statistics import Figure, Spread, wilson_interval
from adrbench.report.tables import Column, Row, Table
from adrbench.results.records import Outcomes, Record, pack_outcomes, write_record
from report_records import (
    attack_record,
    digits_config,
    fixed_records,
    foreign_record,
    table,
    train_record,
)

EXPECTED = Path(__file__).parents[1] / "fixtures" / "report"
FILES = {
    "terminal": "expected.txt",
    "markdown": "expected.md",
    "csv": "expected.csv",
    "json": "expected.json",
    "latex": "expected.tex",
}


def fixed_output(format_name: str) -> str:
    intervals = format_name == "latex"  # printed nowhere else
    return render(build_report(fixed_records(), intervals=intervals), format_name, width=100)


# Formats


@pytest.mark.parametrize("format_name", FORMATS)
def test_output_equals_the_expected_file(format_name: str) -> None:
    assert fixed_output(format_name) == (EXPECTED / FILES[format_name]).read_text("utf-8")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown format 'markdwn': did you mean markdown\?"):
        render(build_report([]), "markdwn")


def test_a_report_of_nothing_is_empty() -> None:
    empty = build_report([])
    assert render(empty, "terminal") == render(empty, "markdown") == ""
    assert json.loads(render(empty, "json")) == {"schema": 1, "tables": []}
    assert list(csv.DictReader(io.StringIO(render(empty, "csv")))) == []
    assert "begin" not in render(empty, "latex")


def test_terminal_tables_fit_and_repeat_their_keys() -> None:
    """Eight suites do not fit beside each other in 60 columns; each is in one part."""
    suites = [f"pgd-{steps}" for steps in range(10, 90, 10)]
    records = [attack_record(8_000, 5_000, suite=suite, seed=s) for suite in suites for s in (0, 1)]
    accuracy, _ = build_report(records, baselines=False).tables
    lines = render(Report(tables=(accuracy,)), "terminal", width=60).splitlines()
    assert max(map(len, lines)) <= 60
    headers = [lines[i - 1].split() for i, line in enumerate(lines) if line.startswith("─")]
    assert len(headers) > 1
    assert all(header[:3] == ["arch", "method", "epoch"] for header in headers)
    assert [label for header in headers for label in header if label in suites] == suites
    assert sum(header.count("seeds") for header in headers) == 1


def test_the_fixed_report_fits_100_columns() -> None:
    for intervals in (False, True):
        shown = render(build_report(fixed_records(), intervals=intervals), "terminal", width=100)
        assert max(map(len, shown.splitlines())) <= 100


def test_colour_only_when_asked() -> None:
    report = build_report(fixed_records())
    plain = render(report, "terminal", width=100)
    coloured = render(report, "terminal", width=100, color=True)
    assert "\x1b[" not in plain
    assert "\x1b[1m" in coloured


HOSTILE = r"a|b_c%d&e#f{g}$h~i^j\k[bold]l<m>"


@pytest.mark.parametrize(
    ("format_name", "shown"),
    [
        ("terminal", HOSTILE),
        ("markdown", r"a\|b_c%d\&e#f{g}\$h\~i^j\\k[bold]l\<m>"),
        ("csv", HOSTILE),
        (
            "latex",
            r"a\textbar{}b\_c\%d\&e\#f\{g\}\$h\textasciitilde{}i\textasciicircum{}j"
            r"\textbackslash{}k[bold]l\textless{}m\textgreater{}",
        ),
    ],
)
def test_names_are_escaped(format_name: str, shown: str) -> None:
    report = build_report([foreign_record(9_000, 10, HOSTILE, dataset="mine")])
    assert shown in render(report, format_name, width=200)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d"])
def test_csv_has_no_formulas(start: str) -> None:
    name = f"{start}cmd|' /C calc'!A0"
    better = foreign_record(9_000, 5_100, name, dataset=name, suite=name, warnings=(name,))
    worse = attack_record(8_000, 4_000, method=name, dataset=name, suite=name)
    shown = render(build_report([better, worse]), "csv")
    cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
    assert f"'{name}" in cells
    assert [cell for cell in cells if cell.startswith(start) and not _is_number(cell)] == []


def test_a_negative_number_is_a_number_in_csv() -> None:
    records = [attack_record(8_000, 4_700), attack_record(8_000, 4_900, selection="last")]
    frame = pd.read_csv(io.StringIO(render(build_report(records), "csv")))
    assert frame.set_index("measure").loc["gap", "value"] == -2.0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_intervals_only_on_request() -> None:
    """50 of 100 has the interval [40.4, 59.6]."""
    record = attack_record(90, 50, dataset="mine", n=100, num_test=100)
    assert "50.00 |" in render(build_report([record]), "markdown")
    assert "50.00 [40.4, 59.6] |" in render(build_report([record], intervals=True), "markdown")


def test_csv_has_a_line_per_value_and_nan_where_nothing_was_measured() -> None:
    """Counts 4,700 and 4,900 of 10,000: mean 48, deviation sqrt(2); 72 baselines are better."""
    records = [
        attack_record(8_000, 5_000, suite="pgd-20"),
        attack_record(8_000, 4_700, method="adr", seed=0),
        attack_record(8_000, 4_900, method="adr", seed=1),
    ]
    frame = pd.read_csv(io.StringIO(render(build_report(records), "csv")))
    main = frame[frame["table"] == "robust accuracy"].set_index("method")
    own = main[main["suite"] == "autoattack"]
    assert list(own.loc["adr", ["value", "seeds", "n"]]) == [48.0, 2, 10_000]
    assert own["std"].to_list()[1] == pytest.approx(math.sqrt(2), abs=1e-6)
    assert own["value"].isna().to_list() == [True, False]
    ranks = main[main["measure"] == "rank"]
    assert list(ranks.loc["adr", ["value", "out_of"]]) == [73, 94]


def test_json_has_the_counts() -> None:
    records = [attack_record(8_000, 4_700 + seed, seed=seed) for seed in (0, 1)]
    document = json.loads(render(build_report(records), "json"))
    assert document["schema"] == 1
    main = next(table for table in document["tables"] if table["name"] == "robust accuracy")
    assert main["context"] == {"dataset": "cifar10", "norm": "Linf", "eps": 8 / 255}
    cell = main["rows"][0]["cells"]["robust autoattack"]
    assert (cell["correct"], cell["n"], cell["seeds"]) == ([4_700, 4_701], 10_000, [0, 1])
    assert cell["mean"] == 47.005
    assert len(cell["interval"]) == 2


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(
        st.tuples(
            st.sampled_from(["at", "adr", "trades"]),
            st.integers(0, 4),
            st.sampled_from(["pgd-20", "autoattack"]),
            st.sampled_from(["best", "last"]),
            st.integers(0, 100),
        ),
        min_size=1,
        max_size=12,
    ),
    intervals=st.booleans(),
)
def test_no_format_invents_a_zero(
    counts: list[tuple[str, int, str, str, int]], intervals: bool
) -> None:
    """Figures equal their counts, so a 0 was counted; a dash was not measured."""
    records = [
        attack_record(100, robust, method=m, seed=s, suite=suite, selection=sel, n=100)
        for m, s, suite, sel, robust in counts
    ]
    report = build_report(records, intervals=intervals, baselines=False)
    for found in report.tables:
        for row, texts in zip(found.rows, grid(found, intervals).cells, strict=True):
            for column, text in zip(found.columns, texts, strict=True):
                cell = row.cells[column.key]
                assert (text == "-") == (cell is None)
                if isinstance(cell, Figure) and cell.correct:
                    share = sum(cell.correct) / len(cell.correct)  # of 100 images
                    assert text.startswith(f"{share:.2f}")


def test_only_footnotes_that_distinguish_rows_are_numbered() -> None:
    """A footnote of every row has no number; one of some rows has a number in these rows."""
    column = Column(key="method", label="method", carries_footnotes=True)
    rows = [
        Row(cells={"method": "at"}, footnotes=("own test set", "first 200 images")),
        Row(cells={"method": "adr"}, footnotes=("own test set",)),
    ]
    both = Table(name="t", title="", context={}, columns=(column,), rows=tuple(rows), notes=("±",))
    shown = grid(both, intervals=False)
    assert shown.cells == (("at [1]",), ("adr",))
    assert shown.notes == ("[1] first 200 images", "all rows: own test set", "±")
    alone = grid(replace(both, rows=both.rows[:1]), intervals=False)
    assert alone.cells == (("at [1,2]",),)


def test_json_is_what_the_standard_encoder_writes() -> None:
    odd = [
        train_record(run=HOSTILE, seconds=math.nan, images_per_second=math.inf),
        train_record(run='quote " and ä', history=()),
    ]
    for records in (fixed_records(), odd, []):
        report = build_report(records)
        document = {"schema": 1, "tables": report.tables}
        expected = json.dumps(document, indent=1, ensure_ascii=False, default=as_plain) + "\n"
        assert render(report, "json") == expected


@pytest.mark.parametrize(
    ("name", "shown", "cells"),
    [("plain", "plain", 5), ("网络", "网络", 4), ("b\bell\a", "bell", 4)],
)
def test_columns_are_as_wide_as_a_terminal_shows_them(name: str, shown: str, cells: int) -> None:
    """`other name` takes 10 cells and the gutter 2; Chinese takes 2 cells each, a bell none."""
    records = [foreign_record(9_000, 10, run) for run in (name, "other name")]
    text = render(build_report(records), "terminal", width=100)
    # The seeds, 1 in a column of 5, are next.
    assert f"  {shown}{' ' * (12 - cells)}    1  " in text


def test_notes_are_wrapped_and_every_line_of_them_is_dim() -> None:
    records = [attack_record(8_000, 4_700, warnings=("word " * 40 + "end",))]
    lines = render(build_report(records), "terminal", width=60, color=True).splitlines()
    words = [line for line in lines if "word word" in line]
    assert len(words) > 2
    assert all(line.startswith("\x1b[2m") and line.endswith("\x1b[0m") for line in words)


# Frames, training, and cost


def test_training_rows_hold_runs_that_differ_only_in_the_seed() -> None:
    config = digits_config()
    records: list[Record] = [
        train_record(seed=seed, config=replace(config, seed=seed).to_json(), seconds=seconds)
        for seed, seconds in ((0, 100.0), (1, 110.0))
    ]
    records += [
        train_record(config=replace(config, lr=0.2).to_json()),
        train_record(config=config.to_json(), device="another"),
    ]
    rows = [row.cells for row in table(build_report(records), "training").rows]
    assert Counter(row["runs"] for row in rows) == {1: 2, 2: 1}
    (both,) = [row for row in rows if row["runs"] == 2]
    assert both["seconds"] == Spread(mean=105.0, std=round(math.sqrt(50), 6))
    assert both["images_per_second"] == Spread(mean=1_164.9, std=0.0)
    assert both["epochs"] == 200


def test_training_rows_depend_on_settings_and_training_images_and_not_on_names() -> None:
    config = digits_config()
    known = {"training_images_sha256": "a" * 64}
    records = [
        train_record(run=f"fast-s{seed}", label=f"fast-s{seed}", seed=seed, config=own, **known)
        for seed in (0, 1)
        for own in (replace(config, seed=seed).to_json(),)
    ]
    (row,) = table(build_report(records), "training").rows
    assert (row.cells["method"], row.cells["runs"], row.footnotes) == ("at (fast)", 2, ())
    other = replace(records[1], training_images_sha256="b" * 64)
    rows = table(build_report([records[0], other]), "training").rows
    assert [row.footnotes for row in rows] == [
        (f"training images with sha256 {letter * 12}",) for letter in "ab"
    ]


def test_a_rate_that_is_not_finite_is_a_dash() -> None:
    report = build_report([train_record(images_per_second=math.inf)])
    (row,) = table(report, "training").rows
    assert row.cells["images_per_second"] is None
    json.loads(render(report, "json"))


def test_evaluation_rows_hold_the_seconds_of_an_attack_at_all_radii_on_a_device() -> None:
    weak = {"suite": "pgd-20", "parameters": {"restarts": 1}}
    strong = {"suite": "pgd-20", "parameters": {"restarts": 10}}
    larger = {"threat_model": ThreatModel(norm="Linf", eps=16 / 255)}
    records = [
        attack_record(8_000, 4_700, seed=0, seconds=10.0),
        attack_record(8_000, 4_700, seed=1, seconds=30.0),
        attack_record(8_000, 4_700, seed=2, seconds=5.0, device="another"),
        attack_record(8_000, 4_700, seed=3, seconds=6.0, processes=2),
        attack_record(8_000, 4_700, seconds=2.0, **weak),
        attack_record(8_000, 4_700, seconds=20.0, **strong),
        attack_record(8_000, 4_700, seconds=2.0, **weak, **larger),
    ]
    rows = [row.cells for row in table(build_report(records), "evaluation").rows]
    found = {
        (row["suite"], row["device"], row["processes"]): (row["evaluations"], row["seconds"])
        for row in rows
    }
    assert found == {
        ("pgd-20 (restarts 1), Linf 2 radii", "cpu", 1): (2, Spread(mean=2.0, std=0.0)),
        ("pgd-20 (restarts 10), Linf 8/255", "cpu", 1): (1, Spread(mean=20.0, std=None)),
        ("autoattack, Linf 8/255", "cpu", 1): (2, Spread(mean=20.0, std=round(math.sqrt(200), 6))),
        ("autoattack, Linf 8/255", "another", 1): (1, Spread(mean=5.0, std=None)),
        ("autoattack, Linf 8/255", "cpu", 2): (1, Spread(mean=6.0, std=None)),
    }


def test_every_line_of_the_csv_is_identified_by_its_keys() -> None:
    config = digits_config()
    records = fixed_records() + [
        train_record(config=config.to_json(), precision=precision, device=device)
        for precision, device in (("float32", "H100"), ("bfloat16", "H100"), ("bfloat16", "H200"))
    ]
    shown = render(build_report(records), "csv")
    lines = list(csv.DictReader(io.StringIO(shown)))
    apart = (*KEYS, "n", "ours", "marks")
    keys = [tuple(line[key] for key in apart) for line in lines]
    assert len(set(keys)) == len(keys)


def test_training_rows_have_footnotes_on_settings_that_differ() -> None:
    records = [
        train_record(run=f"cifar10-resnet18-at-seed{k}", config=digits_config(lr=lr).to_json())
        for k, lr in enumerate((0.05, 0.1))
    ]
    rows = table(build_report(records), "training").rows
    assert sorted(row.footnotes for row in rows) == [
        ("settings: --lr 0.05",),
        ("settings: --lr 0.1",),
    ]


def test_results_frame_has_a_row_per_attack_record(tmp_path: Path) -> None:
    records: list[Record] = [
        attack_record(8_000, 4_700, method="adr", weights="average", warnings=("a", "b")),
        foreign_record(9_000, 10, "mine"),
        train_record(),
    ]
    frame = results_frame(records)
    assert len(frame) == 2
    assert frame["row"].tolist() == ["adr+wa", "mine"]
    assert frame["clean_accuracy"].tolist() == [80.0, 90.0]
    assert frame["robust_accuracy"].tolist() == [47.0, 0.1]
    assert frame["warnings"].tolist() == ["a; b", ""]
    assert frame["seed"].isna().tolist() == [False, True]
    low, high = wilson_interval(4_700, 10_000)
    assert (frame["robust_low"][0], frame["robust_high"][0]) == (100 * low, 100 * high)
    for number, record in enumerate(records):
        write_record(tmp_path / f"{number}.json", record)
    pd.testing.assert_frame_equal(load_results(tmp_path), frame)


def test_an_empty_frame_has_its_columns() -> None:
    assert {"suite", "robust_accuracy"} <= set(results_frame([]).columns)


def test_reports_import_no_large_package() -> None:
    large = {"torch", "numpy", "pandas", "rich"}
    code = f"import sys, adrbench.report; print(sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_thousands_of_records_take_less_than_three_seconds() -> None:
    """10,000 should take under 3 s: 2,000 in a thousand rows get the same 3 s of a slow machine.

    They are a sweep of settings, half of the rows each with a reference of its own.
    """
    verdicts = Outcomes(
        clean=pack_outcomes(np.ones(100, bool)), robust=pack_outcomes(np.eye(10) > 0)
    )
    records: list[Record] = []
    for i in range(500):
        for method in ("at", "trades"):
            config = digits_config(method=method, lr=0.001 * (i + 1), beta=6.0)
            name = {"method": method, "run": f"cifar10-sweep{i}-{method}-seed0"}
            records.append(train_record(**name, config=config.to_json()))
            for suite in ("pgd-20", "autoattack"):
                changes = {"n": 100, "num_test": 100, "training_sha256": config.sha256()}
                evaluated = attack_record(100, 10, **name, suite=suite, **changes)
                records.append(replace(evaluated, verdicts=verdicts))
    began = time.process_time()
    report = build_report(records)
    shown = render(report, "terminal", width=100)
    assert time.process_time() - began < 3
    assert len(shown.splitlines()) > 1_000
    assert len(table(report, "paired").rows) == 1_000


if __name__ == "__main__":
    EXPECTED.mkdir(parents=True, exist_ok=True)
    for name in FORMATS:
        (EXPECTED / FILES[name]).write_text(fixed_output(name), "utf-8")
